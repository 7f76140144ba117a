from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager
from uzswap.core.paging.calls cimport uz_call

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <sys/syscall.h>
    struct uz_mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
    """
    struct uz_mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    enum:
        SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_recvfrom, SYS_sendto, SYS_ioctl, SYS_getrandom
        SYS_readv, SYS_writev, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2
        SYS_recvmsg, SYS_sendmsg, SYS_recvmmsg, SYS_sendmmsg

cdef enum:
    # may_cut(): how much of a transfer that is too large has to be in memory at once
    WHOLE = 0               # all of it
    ONE_PART = 1            # a part, and that is all that is transferred
    ALL_PARTS = 2           # one part after the other

    MOST_PARTS = 64         # buffers of one part
    MOST_VECTOR = 1024      # IOV_MAX: the kernel takes no more
    LOOK_PAGES = 256        # looked at in one hold of the lock

# What a call transfers.
cdef struct Transfer:
    uz_call *call
    iovec one               # the buffer of a call that has one
    iovec *vector
    uint64_t n
    msghdr *message         # of recvmsg() and sendmsg(), or NULL
    int pointer             # the argument that is the buffer; -1: it is a vector, or a message
    int length              # the argument that says how long it is; -1: none does
    int offset              # the argument that says where in the file, or -1
    int inward              # the kernel writes to the buffer
    int flags               # MSG_*, or 0

# What the pages of a buffer are, as far as they are an array's.
cdef struct Held:
    Pager *p
    uint64_t first
    uint64_t n

cdef long serve_call(uz_call *call) noexcept nogil
cdef long serve_messages(uz_call *call) noexcept nogil
cdef int describe(Transfer *t, uz_call *call) noexcept nogil
cdef long transfer(Transfer *t) noexcept nogil
cdef long part(Transfer *t, iovec *vector, uint64_t n, int waited) noexcept nogil
cdef uint64_t most_at_once(Transfer *t) noexcept nogil
cdef int locate(Held *h, const iovec *buffer) noexcept nogil
cdef int hold(const iovec *vector, uint64_t n, int inward) noexcept nogil
cdef void release(const iovec *vector, uint64_t n) noexcept nogil
cdef void release_pages(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef int hold_pages(Pager *p, uint64_t first, uint64_t n, int inward) noexcept nogil
cdef void put_what_is_missing(Pager *p, uint64_t first, uint64_t n) noexcept nogil

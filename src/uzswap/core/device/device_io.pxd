from libc.stdint cimport int64_t, uint64_t
from uzswap.core.libc_ext cimport aio_context_t, iocb, pthread_mutex_t
from uzswap.core.paging.uffd cimport pthread_cond_t, pthread_t

cdef enum:
    MOST_IO_THREADS = 8

    ASK_READ = 0
    ASK_WRITE = 1
    ASK_SUBMIT = 2          # a write by AIO; answered with SUBMITTED when it is on its way, else as ASK_WRITE
    ASK_ZERO = 3
    ASK_TRUNCATE = 4        # to `offset` bytes
    ASK_CALL = 5            # `call(arg)`, for what needs several steps

    SUBMITTED = 1

# Something that is to be done with the device.  It stays where it is until it is answered.
cdef struct Request:
    Request *next
    int op
    char *buf
    uint64_t offset
    size_t n
    aio_context_t aio
    iocb *cb
    void (*call)(void *) noexcept nogil
    int (*prepare)(void *) noexcept nogil   # before a write, in the thread that does it: 0, or the -errno to answer; or NULL
    void *arg               # of either
    int answered
    int error               # 0, SUBMITTED or -errno

cdef struct DeviceIO:
    int fd                  # in our table; in the program's, as long as that has not closed it
    uint64_t identity[3]
    int direct
    int also                # another descriptor that the threads keep, or -1
    uint64_t also_identity[3]
    const char *directory   # the first thread makes a file without a name here, of nbytes; or NULL
    uint64_t nbytes
    int tid                 # of the first thread
    int handed              # for a fork: fd, and `also`, in the table of who forks; or -1
    int also_handed
    int own_table           # the threads' descriptors are theirs alone
    void *pin               # a page of it, so that no other file can get its identity; or NULL
    int pid
    pthread_mutex_t lock    # of what follows; nothing else is locked while it is held
    pthread_cond_t asked
    pthread_cond_t answered
    Request *first
    Request *last
    int closing
    int started             # 1, or the -errno with which it failed
    int idle
    int nr_threads
    int nr_ended            # of these
    pthread_t threads[MOST_IO_THREADS]

cdef int device_io_start(DeviceIO *io, int fd, int direct) noexcept nogil
cdef int device_io_begin(DeviceIO *io) noexcept nogil
cdef int device_io_wait(DeviceIO *io) noexcept nogil
cdef void device_io_stop(DeviceIO *io) noexcept nogil
cdef int device_io_hand(DeviceIO *io) noexcept nogil
cdef void device_io_handed(DeviceIO *io) noexcept nogil
cdef int device_io_inherit(DeviceIO *io, int also) noexcept nogil
cdef void device_ask(DeviceIO *io, Request *r) noexcept nogil
cdef int device_wait(DeviceIO *io, Request *r) noexcept nogil
cdef int device_ask_and_wait(DeviceIO *io, int op, char *buf, uint64_t offset, size_t n) noexcept nogil
cdef void device_settle(DeviceIO *io, const int *busy) noexcept nogil
cdef int device_punch(DeviceIO *io, uint64_t offset, size_t n) noexcept nogil
cdef int device_read(DeviceIO *io, char *buf, uint64_t offset, size_t n) noexcept nogil
cdef int still_ours(DeviceIO *io) noexcept nogil
cdef int start_thread(DeviceIO *io, void *(*run)(void *) noexcept nogil) noexcept nogil
cdef int perform(DeviceIO *io, Request *r) noexcept nogil
cdef int write_all(DeviceIO *io, const char *buf, uint64_t offset, size_t n) noexcept nogil
cdef int read_all(DeviceIO *io, char *buf, uint64_t offset, size_t n) noexcept nogil
cdef void *begin(void *arg) noexcept nogil
cdef void *serve(void *arg) noexcept nogil

from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.paging.uffd cimport pthread_cond_t, pthread_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <pthread.h>
    #include <unistd.h>
    #include <sys/socket.h>
    """
    ssize_t read(int fd, void *buffer, size_t n) nogil
    ssize_t write(int fd, const void *buffer, size_t n) nogil
    int close(int fd) nogil
    ssize_t send(int fd, const void *buffer, size_t n, int flags) nogil
    ssize_t recv(int fd, void *buffer, size_t n, int flags) nogil
    int shutdown(int fd, int how) nogil
    int pthread_cancel(pthread_t thread) nogil
    enum: MSG_NOSIGNAL
    enum: SHUT_WR

# What fuse_session_exit() is.
ctypedef void (*Told)(void *) noexcept nogil

cdef enum:
    # Bytes of the largest request or answer: max_write of control/fuse.py, or what the kernel reads at once when
    # nobody says how many pages (FUSE_DEFAULT_MAX_PAGES_PER_REQ, 32), and headers.
    PACKET = (1 << 17) + (1 << 12)

cdef struct Line:
    int device              # /dev/fuse
    int end                 # of the socket; the other one is the server's
    int started             # 0 not yet, 1, or -errno
    int alone               # device and end are in no other table of descriptors
    pthread_t down
    pthread_t up
    pthread_mutex_t lock
    pthread_cond_t changed  # started
    Told told               # called when the device has ended, unless it is NULL
    void *argument
    char request[PACKET]
    char answer[PACKET]

cdef class Relay:
    cdef Line *line
    cdef int joined

cdef void *pass_requests(void *arg) noexcept nogil
cdef void *pass_answers(void *arg) noexcept nogil
cdef int line_start(Line *line) noexcept nogil
cdef void line_started(Line *line, int result) noexcept nogil

"""C declarations that Cython does not ship: threads, mappings, Linux AIO, compilers' builtins."""

from libc.stdint cimport int16_t, int64_t, uint16_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil, void (*child)() noexcept nogil)
    ctypedef struct pthread_rwlock_t:
        pass
    int pthread_rwlock_init(pthread_rwlock_t *lock, void *attr)
    int pthread_rwlock_destroy(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)
    int munmap(void *addr, size_t length)
    int madvise(void *addr, size_t length, int advice)
    int PROT_READ, PROT_WRITE
    int MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    int MADV_DOFORK, MADV_DONTFORK, MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <sched.h>
    #include <poll.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/random.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <linux/aio_abi.h>
    #include <linux/falloc.h>
    #include <linux/fs.h>

    #ifndef MADV_DONTNEED_LOCKED
    #define MADV_DONTNEED_LOCKED 24
    #endif

    /* A lock that is held for no longer than a system call.  To sleep for it costs more than that: whoever holds it
     * would wake the sleeper on another CPU.  So it is tried first, the holder going before if it is on this one.
     * Measured: random faults of one thread take 0.65 of the time they take with a plain lock (2 virtual CPUs, 2026-11;
     * with ON_THE_SPOT of page_in.py). */
    enum { UZ_BRIEF_TRIES = 64 };
    static inline int uz_brief_lock(pthread_rwlock_t *lock, int alone) {
        for (int i = 0; i < UZ_BRIEF_TRIES; i++) {
            if ((alone ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock)) == 0) return 0;
            sched_yield();
        }
        return alone ? pthread_rwlock_wrlock(lock) : pthread_rwlock_rdlock(lock);
    }
    /* In no core dump.  After mlockall(MCL_FUTURE) all of it would be locked, and made present at once: so it is
     * accessible last. */
    static inline void *uz_reserve(size_t bytes) {
        void *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return NULL;
        munlock(p, bytes);
        madvise(p, bytes, MADV_DONTDUMP);
        if (mprotect(p, bytes, PROT_READ | PROT_WRITE) == 0) return p;
        munmap(p, bytes);
        return NULL;
    }
    static inline void uz_forbid(char *p, size_t bytes) {
        mmap(p, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    }
    /* Have nothing mapped in a range from now on but what is there already, to about 2 MiB. */
    static inline void uz_keep_away(char *p, size_t bytes) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        void *got = mmap(p, bytes, PROT_NONE, flags, -1, 0);
        if (got == p) return;
        if (got != MAP_FAILED) munmap(got, bytes); /* kernels before 4.17 take the address for a hint */
        if (bytes <= 2 << 20) return;
        size_t half = bytes / 2 & ~(size_t)4095;
        uz_keep_away(p, half);
        uz_keep_away(p + half, bytes - half);
    }
    /* Have memory of ours read as zero, also where the program has locked it.  0 or -errno: then it may be as it was. */
    static inline int uz_discard(void *p, size_t n) {
        if (madvise(p, n, MADV_DONTNEED) == 0) return 0;
        if (errno == EINVAL && madvise(p, n, MADV_DONTNEED_LOCKED) == 0) return 0;
        /* Kernels before 5.18 have no such advice. */
        if (errno == EINVAL && munlock(p, n) == 0 && madvise(p, n, MADV_DONTNEED) == 0) return 0;
        return -errno;
    }
    /* As uz_discard(), but what the program has locked stays: -EINVAL. */
    static inline int uz_discard_unlocked(void *p, size_t n) { return madvise(p, n, MADV_DONTNEED) < 0 ? -errno : 0; }
    /* Memory for plaintext of what was stored: a core dump has none of it.  Page-aligned; NULL without memory. */
    static inline void *uz_private(size_t bytes) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
        madvise(p, bytes, MADV_DONTDUMP);
        return p;
    }
    /* Overwrite what is there of it: pages that were never touched are not made for that. */
    static inline void uz_wipe(void *p, size_t bytes) {
        unsigned char there[256];
        for (char *at = p, *end = at + bytes; at < end; at += sizeof there * 4096) {
            size_t n = (size_t)(end - at) < sizeof there * 4096 ? (size_t)(end - at) : sizeof there * 4096;
            if (mincore(at, n, there) < 0) memset(there, 1, sizeof there);
            for (size_t i = 0; i * 4096 < n; i++)
                if (there[i] & 1) explicit_bzero(at + i * 4096, n - i * 4096 < 4096 ? n - i * 4096 : 4096);
        }
    }
    static inline void uz_private_free(void *p, size_t bytes) {
        if (!p) return;
        uz_wipe(p, bytes);
        munmap(p, bytes);
    }
    /* Memory for keys: in no core dump, and never swapped out.  NULL, with 0 or -errno: -EPERM when it can't be locked. */
    static inline void *uz_secret(size_t bytes, int *error) {
        void *p = uz_private(bytes);
        *error = p ? 0 : -ENOMEM;
        if (!p || mlock(p, bytes) == 0) return p;
        *error = -EPERM;
        munmap(p, bytes);
        return NULL;
    }
    /* In a child, which inherits memory but no locks. */
    static inline void uz_secret_inherit(void *p, size_t bytes) { if (p) mlock(p, bytes); }
    /* What tells an open file from every other that the same number may stand for later.  0 or -errno. */
    /* A number that some read without the lock under which it is changed. */
    static inline int uz_read_int(const int *n) { return __atomic_load_n(n, __ATOMIC_ACQUIRE); }
    static inline void uz_change_int(int *n, int value) { __atomic_store_n(n, value, __ATOMIC_RELEASE); }
    static inline int uz_identity(int fd, uint64_t identity[3]) {
        struct stat st;
        if (fstat(fd, &st) < 0) return -errno;
        identity[0] = st.st_dev;
        identity[1] = st.st_ino;
        identity[2] = st.st_rdev;
        return 0;
    }
    /* Keeps a file in being, its inode's number its own, whatever becomes of descriptors.  NULL when it can't be. */
    static inline void *uz_pin_file(int fd) {
        void *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) return NULL;
        madvise(p, 4096, MADV_DONTFORK);
        return p;
    }
    static inline int uz_is_still(int fd, const uint64_t identity[3]) {
        uint64_t now[3];
        return uz_identity(fd, now) == 0 && memcmp(now, identity, sizeof now) == 0;
    }
    /* Close a number in the program's table, unless the program did, and it is another file's now. */
    static inline void uz_close_ours(int fd, const uint64_t identity[3]) { if (uz_is_still(fd, identity)) close(fd); }
    /* A descriptor of one of our threads, which may have a table of its own, in the caller's: a new one, or -errno. */
    static inline int uz_reopen(int tid, int fd, int flags) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d/fd/%d", tid, fd);
        int got = open(path, flags | O_CLOEXEC);
        return got < 0 ? -errno : got;
    }
    /* Both ends of a pipe of which nobody ever reads or writes a byte: it tells when the last writer is gone. */
    static inline int uz_lease(int *ends) { return pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0; }
    static inline int uz_lease_ended(int fd) {
        struct pollfd p = { fd, POLLIN, 0 };
        return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
    }
    /* A file without a name, that nobody else can open, of up to n bytes: a descriptor, or -errno. */
    static inline int uz_open_unnamed(const char *directory, uint64_t n, int *direct) {
        int flags = O_RDWR | O_CLOEXEC, fd = open(directory, flags | O_TMPFILE | O_EXCL | O_DIRECT, 0600);
        *direct = fd >= 0;
        if (fd < 0) fd = open(directory, flags | O_TMPFILE | O_EXCL, 0600);
        if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT || errno == EINVAL)) {
            char path[4096];
            if (snprintf(path, sizeof path, "%s/uzswap-XXXXXX", directory) >= (int)sizeof path) return -ENAMETOOLONG;
            fd = mkostemp(path, O_CLOEXEC);
            if (fd >= 0) unlink(path);
        }
        if (fd < 0 || ftruncate(fd, n) < 0) {
            int saved = errno;
            if (fd >= 0) close(fd);
            return -saved;
        }
        /* Some file systems accept the flag and then refuse the I/O, or want larger blocks than we use. */
        if (*direct) {
            void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (page != MAP_FAILED && pread(fd, page, 4096, 0) < 0 && errno == EINVAL) {
                fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_DIRECT);
                *direct = 0;
            }
            if (page != MAP_FAILED) munmap(page, 4096);
        }
        return fd;
    }
    static inline uint64_t uz_random64(void) {
        uint64_t v = 0;
        while (getrandom(&v, sizeof v, 0) != sizeof v && (errno == EINTR || errno == EAGAIN));
        return v;
    }
    static inline void uz_random_bytes(void *p, size_t n) {
        for (size_t done = 0; done < n;) {
            ssize_t got = getrandom((char *)p + done, n - done, 0);
            if (got > 0) done += got;
        }
    }
    static inline int64_t uz_monotonic_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static inline int uz_io_setup(unsigned n, aio_context_t *ctx) {
        *ctx = 0;
        return syscall(SYS_io_setup, n, ctx) < 0 ? -errno : 0;
    }
    static inline void uz_io_destroy(aio_context_t ctx) { syscall(SYS_io_destroy, ctx); }
    static inline int uz_io_write(aio_context_t ctx, struct iocb *cb, int fd, void *buf, size_t n, int64_t off) {
        struct iocb *list[1] = { cb };
        memset(cb, 0, sizeof *cb);
        cb->aio_fildes = fd;
        cb->aio_lio_opcode = IOCB_CMD_PWRITE;
        cb->aio_buf = (uint64_t)(uintptr_t)buf;
        cb->aio_nbytes = n;
        cb->aio_offset = off;
        cb->aio_data = (uint64_t)(uintptr_t)cb;
        return syscall(SYS_io_submit, ctx, 1, list) == 1 ? 0 : -errno;
    }
    static inline int uz_io_wait(aio_context_t ctx, struct io_event *event) {
        for (;;) {
            long r = syscall(SYS_io_getevents, ctx, 1, 1, event, NULL);
            if (r == 1) return 0;
            if (r < 0 && errno != EINTR) return -errno;
        }
    }
    static inline int uz_punch(int fd, int64_t off, int64_t n) {
        int r;
        do r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, n); while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
    }
    /* A block device reads zeros there afterwards: by discarding if it promises that, else the kernel writes them. */
    static inline int uz_zero(int fd, uint64_t off, uint64_t n) {
        uint64_t range[2] = { off, n };
        int r = uz_punch(fd, off, n);
        if (r != -EOPNOTSUPP && r != -ENOSYS) return r;
        do r = ioctl(fd, BLKZEROOUT, range); while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
    }
    static inline int uz_truncate(int fd, int64_t n) {
        int r;
        do r = ftruncate(fd, n); while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
    }
    static inline int uz_write_out(int fd, int64_t off, int64_t n) {
        int flags = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
        while (sync_file_range(fd, off, n, flags) < 0) {
            if (errno == EINTR) continue;
            if (errno != ESPIPE && errno != EINVAL) return -errno;
            break;
        }
        posix_fadvise(fd, off, n, POSIX_FADV_DONTNEED);
        return 0;
    }
    static inline size_t uz_ram_bytes(void) {
        return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    }
    static inline uint64_t uz_load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    """
    int uz_brief_lock(pthread_rwlock_t *lock, int alone) nogil
    void *uz_reserve(size_t nbytes) nogil
    void uz_forbid(char *p, size_t nbytes) nogil
    void uz_keep_away(char *p, size_t nbytes) nogil
    int uz_discard(void *p, size_t nbytes) nogil
    int uz_discard_unlocked(void *p, size_t nbytes) nogil
    void *uz_private(size_t nbytes) nogil
    void uz_private_free(void *p, size_t nbytes) nogil
    void uz_wipe(void *p, size_t nbytes) nogil
    void *uz_secret(size_t nbytes, int *error) nogil
    void uz_secret_inherit(void *p, size_t nbytes) nogil
    int uz_read_int(const int *n) nogil
    void uz_change_int(int *n, int value) nogil
    int uz_identity(int fd, uint64_t *identity) nogil
    void *uz_pin_file(int fd) nogil
    int uz_is_still(int fd, const uint64_t *identity) nogil
    void uz_close_ours(int fd, const uint64_t *identity) nogil
    int uz_reopen(int tid, int fd, int flags) nogil
    int uz_lease(int *ends) nogil
    int uz_lease_ended(int fd) nogil
    int uz_open_unnamed(const char *directory, uint64_t n, int *direct) nogil
    enum: O_RDONLY, O_RDWR, O_WRONLY, O_DIRECT
    uint64_t uz_random64() nogil
    void uz_random_bytes(void *p, size_t n) nogil
    int64_t uz_monotonic_ns() nogil
    ctypedef unsigned long aio_context_t
    cdef struct iocb:
        uint64_t aio_data
    cdef struct io_event:
        uint64_t data
        int64_t res
    int uz_io_setup(unsigned n, aio_context_t *ctx) nogil
    void uz_io_destroy(aio_context_t ctx) nogil
    int uz_io_write(aio_context_t ctx, iocb *cb, int fd, void *buf, size_t n, int64_t off) nogil
    int uz_io_wait(aio_context_t ctx, io_event *event) nogil
    int uz_punch(int fd, int64_t off, int64_t n) nogil
    int uz_zero(int fd, uint64_t off, uint64_t n) nogil
    int uz_truncate(int fd, int64_t n) nogil
    int uz_write_out(int fd, int64_t off, int64_t n) nogil
    size_t uz_ram_bytes() nogil
    uint64_t uz_load64(const void *p) nogil
    void prefetch "__builtin_prefetch" (const void *p) nogil
    int ctz "__builtin_ctz" (unsigned x) nogil
    int popcount "__builtin_popcount" (unsigned x) nogil
    int posix_memalign(void **p, size_t align, size_t nbytes) nogil
    char *strndup(const char *s, size_t n) nogil
    int64_t pread(int fd, void *buf, size_t n, int64_t off) nogil
    int64_t pwrite(int fd, const void *buf, size_t n, int64_t off) nogil

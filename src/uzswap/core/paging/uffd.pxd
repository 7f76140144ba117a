"""userfaultfd: the calls, with constants that older headers lack.  Every function returns 0 (or a count) or -errno."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.libc_ext cimport pthread_mutex_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <stdio.h>
    #include <string.h>
    #include <unistd.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/syscall.h>
    #include <linux/userfaultfd.h>

    #ifndef UFFD_USER_MODE_ONLY
    #define UFFD_USER_MODE_ONLY 1
    #endif
    #ifndef USERFAULTFD_IOC_NEW
    #define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
    #endif
    #define UZ_FEATURE_EXACT_ADDRESS (1 << 11)
    #define UZ_FEATURE_POISON (1 << 14)
    #define UZ_FEATURE_MOVE (1 << 16)
    #ifndef SYS_close_range
    #define SYS_close_range 436
    #endif
    #ifndef CLOSE_RANGE_UNSHARE
    #define CLOSE_RANGE_UNSHARE 2
    #endif
    enum { UZ_NOTHING, UZ_READ, UZ_WRITE, UZ_PROTECTED, UZ_TAKEN_AWAY };
    struct uz_range_op { uint64_t a, b, len, mode; int64_t done; };
    struct uz_poison { uint64_t start, len, mode; int64_t done; };
    #define UZ_IOC_MOVE _IOWR(UFFDIO, 0x05, struct uz_range_op)
    #define UZ_IOC_POISON _IOWR(UFFDIO, 0x08, struct uz_poison)

    static int uz_uffd_try(int user_only, int device, uint64_t features, uint64_t *offered) {
        int fd;
        if (device) {
            int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
            if (dev < 0) return -errno;
            fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
            int saved = errno;
            close(dev);
            if (fd < 0) return -saved;
        } else {
            fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | (user_only ? UFFD_USER_MODE_ONLY : 0));
            if (fd < 0) return -errno;
        }
        struct uffdio_api api = { .api = UFFD_API, .features = features };
        if (ioctl(fd, UFFDIO_API, &api) < 0) { int saved = errno; close(fd); return -saved; }
        *offered = api.features;
        return fd;
    }
    /* Opens in the best mode that the machine allows: full by system call, full by /dev/userfaultfd, user mode only. */
    static int uz_uffd_open(int want_user_only, uint64_t use, int *user_only, uint64_t *features) {
        int error = -ENOSYS;
        for (int way = want_user_only ? 2 : 0; way < 3; way++) {
            uint64_t offered = 0;
            int probe = uz_uffd_try(way == 2, way == 1, 0, &offered);
            if (probe < 0) { error = probe; continue; }
            close(probe);
            uint64_t wanted = offered & (use | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP);
            /* Mapping over a page, which is poison without UFFDIO_POISON, would wait for its own event. */
            if (!(wanted & UZ_FEATURE_POISON)) wanted &= UZ_FEATURE_MOVE;
            wanted |= offered & (UFFD_FEATURE_THREAD_ID | UZ_FEATURE_EXACT_ADDRESS);
            if (!(wanted & UZ_FEATURE_MOVE)) wanted |= UFFD_FEATURE_PAGEFAULT_FLAG_WP;
            int fd = uz_uffd_try(way == 2, way == 1, wanted, &offered);
            if (fd < 0) { error = fd; continue; }
            *user_only = way == 2;
            *features = wanted;
            return fd;
        }
        return error;
    }
    static inline int uz_uffd_register(int fd, void *p, size_t n, int protect) {
        uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | (protect ? UFFDIO_REGISTER_MODE_WP : 0);
        struct uffdio_register r = { .range = { (uint64_t)(uintptr_t)p, n }, .mode = mode };
        return ioctl(fd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
    }
    static inline int uz_uffd_unregister(int fd, void *p, size_t n) {
        struct uffdio_range r = { (uint64_t)(uintptr_t)p, n };
        return ioctl(fd, UFFDIO_UNREGISTER, &r) < 0 ? -errno : 0;
    }
    static inline int uz_uffd_protect(int fd, void *p, size_t n, int on) {
        struct uffdio_writeprotect w = { .range = { (uint64_t)(uintptr_t)p, n },
                                         .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };
        return ioctl(fd, UFFDIO_WRITEPROTECT, &w) < 0 ? -errno : 0;
    }
    /* Bytes done, or -errno when none were. */
    static inline int64_t uz_uffd_copy(int fd, void *dst, const void *src, size_t n) {
        struct uffdio_copy c = { .dst = (uint64_t)(uintptr_t)dst, .src = (uint64_t)(uintptr_t)src, .len = n };
        if (ioctl(fd, UFFDIO_COPY, &c) == 0) return n;
        return c.copy > 0 ? c.copy : -errno;
    }
    static inline int64_t uz_uffd_zero(int fd, void *dst, size_t n) {
        struct uffdio_zeropage z = { .range = { (uint64_t)(uintptr_t)dst, n } };
        if (ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0) return n;
        return z.zeropage > 0 ? z.zeropage : -errno;
    }
    static inline int64_t uz_uffd_move(int fd, void *dst, void *src, size_t n) {
        struct uz_range_op m = { (uint64_t)(uintptr_t)dst, (uint64_t)(uintptr_t)src, n, 0, 0 };
        if (ioctl(fd, UZ_IOC_MOVE, &m) == 0) return n;
        return m.done > 0 ? m.done : -errno;
    }
    /* Memory that is shared with a child, or a parent, becomes the process's alone, whoever writes to it meanwhile: as a
       write does it, which changes nothing.  By futex(), since that does not wait for a page that is not there. */
    static inline void uz_make_ours(char *p, size_t n) {
        static int none;
        for (size_t i = 0; i < n; i += 4096)
            syscall(SYS_futex, &none, 5 | 128 /* FUTEX_WAKE_OP, private */, 0, 0, p + i, 2u << 28 /* or 0 */);
    }
    static inline int uz_uffd_wake(int fd, void *p, size_t n) {
        struct uffdio_range r = { (uint64_t)(uintptr_t)p, n };
        return ioctl(fd, UFFDIO_WAKE, &r) < 0 ? -errno : 0;
    }
    static inline int64_t uz_uffd_poison(int fd, void *p, size_t n) {
        struct uz_poison r = { (uint64_t)(uintptr_t)p, n, 0, 0 };
        if (ioctl(fd, UZ_IOC_POISON, &r) == 0) return n;
        return r.done > 0 ? r.done : -errno;
    }
    /* SIGBUS without UFFDIO_POISON: a file that ends before the page does. */
    static inline int uz_map_nothing(void *p, size_t n) {
        int file = syscall(SYS_memfd_create, "uzswap-lost", 1 /* MFD_CLOEXEC */);
        if (file < 0) return -errno;
        void *at = mmap(p, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
        int error = at == MAP_FAILED ? -errno : 0;
        close(file);
        return error;
    }
    /* What the program did to this memory ends with the array that was there.  0 or -errno. */
    static inline int uz_as_reserved(void *p, size_t n) {
        if (munlock(p, n) < 0 || mprotect(p, n, PROT_READ | PROT_WRITE) < 0) return -errno;
        if (madvise(p, n, MADV_DONTFORK) < 0 || madvise(p, n, MADV_DONTDUMP) < 0) return -errno;
        madvise(p, n, MADV_NOHUGEPAGE);  /* EINVAL where the kernel has no huge pages */
        return 0;
    }
    /* Undoes uz_map_nothing().  Not accessible until it is registered: it would read as zero. */
    static inline int uz_map_again(int fd, void *p, size_t n, int protect) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
        if (mmap(p, n, PROT_NONE, flags, -1, 0) == MAP_FAILED) return -errno;
        int error = uz_uffd_register(fd, p, n, protect);
        return error ? error : uz_as_reserved(p, n);
    }
    /* What a message says: a kind, the address in question, and the bytes from there; of a fault, whose it is. */
    static int uz_uffd_take(int fd, uint64_t *address, uint64_t *nbytes) {
        struct uffd_msg msg;
        ssize_t n = read(fd, &msg, sizeof msg);
        if (n != sizeof msg) return n < 0 && errno != EAGAIN && errno != EINTR ? -errno : UZ_NOTHING;
        switch (msg.event) {
        case UFFD_EVENT_PAGEFAULT:
            *address = msg.arg.pagefault.address;
            *nbytes = msg.arg.pagefault.feat.ptid;
            if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) return UZ_PROTECTED;
            return msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE ? UZ_WRITE : UZ_READ;
        case UFFD_EVENT_REMAP:
            *address = msg.arg.remap.from;
            *nbytes = msg.arg.remap.len;
            return UZ_TAKEN_AWAY;
        case UFFD_EVENT_UNMAP:
            *address = msg.arg.remove.start;
            *nbytes = msg.arg.remove.end - msg.arg.remove.start;
            return UZ_TAKEN_AWAY;
        }
        return UZ_NOTHING;
    }
    /* Waits until there may be a message: 0, or -ECANCELED when stop_fd became readable. */
    static inline int uz_uffd_wait(int fd, int stop_fd) {
        struct pollfd p[2] = { { fd, POLLIN, 0 }, { stop_fd, POLLIN, 0 } };
        return poll(p, 2, -1) > 0 && p[1].revents ? -ECANCELED : 0;
    }
    /* Waits for a while: 1 when there may be a message, -ECANCELED when stop_fd became readable. */
    static inline int uz_uffd_wait_ms(int fd, int stop_fd, int ms) {
        struct pollfd p[2] = { { fd, POLLIN, 0 }, { stop_fd, POLLIN, 0 } };
        if (poll(p, 2, ms) <= 0) return 0;
        return p[1].revents ? -ECANCELED : 1;
    }
    /* Inherited by nobody: whoever writes to the pipe ends the threads.  0 or -errno. */
    static inline int uz_pipe(int *ends) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }
    /* A table of descriptors for this thread, and those it makes, with nothing in it but keep[] (sorted) and stderr. */
    static inline int uz_own_descriptors(const int *keep, int n) {
        unsigned from = 0;
    #ifdef UZ_ONE_TABLE /* for a tool that knows one table of descriptors: see scripts/sanitize */
        return -ENOSYS;
    #endif
        if (syscall(SYS_close_range, 3u << 28, ~0u, CLOSE_RANGE_UNSHARE) < 0) return -errno;
        for (int i = 0; i <= n; i++) {
            unsigned next = i < n ? (unsigned)keep[i] : 3u << 28;
            if (from <= STDERR_FILENO && next > STDERR_FILENO) {
                syscall(SYS_close_range, 0u, STDERR_FILENO - 1, 0);
                from = STDERR_FILENO + 1;
            }
            if (next > from) syscall(SYS_close_range, from, next - 1, 0);
            from = next + 1;
        }
        return 0;
    }
    /* Lets others run; 0 is as short as can be. */
    static inline void uz_pause(int ms) { if (ms) poll(NULL, 0, ms); else sched_yield(); }
    static inline int uz_thread_id(void) { return syscall(SYS_gettid); }
    static inline int uz_thread_lives(int tid) { return syscall(SYS_tgkill, getpid(), tid, 0) == 0 || errno != ESRCH; }
    /* CPU time of a thread of this process, by the number that the kernel gives its clock (posix-timers_types.h); -1 for
       one that is no more. */
    static inline int64_t uz_thread_cpu_ns(int tid) {
        struct timespec t;
        return clock_gettime((clockid_t)((~(unsigned)tid << 3) | 6), &t) ? -1 : t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    /* Whether a thread runs, or would if there were a CPU for it or nothing was stopped: it waits for nobody.  0 where
       that cannot be told. */
    static inline int uz_thread_runs(int tid) {
        char line[256];
        snprintf(line, sizeof line, "/proc/self/task/%d/stat", tid);
        int fd = open(line, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return 0;
        ssize_t n = read(fd, line, sizeof line - 1);
        close(fd);
        line[n > 0 ? n : 0] = 0;
        const char *end = strrchr(line, ')'); /* of its name, which may be anything */
        return end && end[1] == ' ' && (end[2] == 'R' || end[2] == 'T');
    }
    static inline void uz_kill_self_with_sigbus(void) { kill(getpid(), SIGBUS); }
    /* A condition for uz_cond_wait_ms(): the wall clock may be set back. */
    static inline int uz_cond_init(pthread_cond_t *cond) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        int r = pthread_cond_init(cond, &attr);
        pthread_condattr_destroy(&attr);
        return -r;
    }
    static inline int uz_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *mutex, int ms) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += ms / 1000;
        t.tv_nsec += ms % 1000 * 1000000L;
        if (t.tv_nsec >= 1000000000L) { t.tv_sec++; t.tv_nsec -= 1000000000L; }
        return pthread_cond_timedwait(cond, mutex, &t);
    }
    /* All signals are blocked: a handler must not run where nothing may be waited for. */
    static inline int uz_thread_start(pthread_t *thread, void *(*run)(void *), void *arg, int cpu) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int r = pthread_create(thread, NULL, run, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r == 0) pthread_setname_np(*thread, "uzswap");
        if (r == 0 && cpu >= 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(*thread, sizeof one, &one);
        }
        return -r;
    }
    static inline int uz_allowed_cpus(int *cpus, int most) {
        cpu_set_t set;
        int n = 0;
        if (sched_getaffinity(0, sizeof set, &set) < 0) return 0;
        for (int i = 0; i < CPU_SETSIZE && n < most; i++) if (CPU_ISSET(i, &set)) cpus[n++] = i;
        return CPU_COUNT(&set);
    }
    /* Not by stdio: its lock may be held by a thread that waits for a fault. */
    static inline void uz_say_lost(const char *memcg, const char *array, uint64_t size, uint64_t offset, int error,
                                   int again) {
        char line[512];
        const char *why = error == EBADMSG ? "its checksum is wrong" : error == EILSEQ ? "it does not decompress"
                                                                                     : strerrordesc_np(error);
        int n = snprintf(line, sizeof line,
                         "uzswap: %s: bytes %llu to %llu of %s of %llu bytes %s: %s; access to them is SIGBUS\\n",
                         memcg ? memcg : "a cgroup", (unsigned long long)offset, (unsigned long long)offset + 4095,
                         array ? array : "an array", (unsigned long long)size,
                         again ? "cannot be read for now" : "are lost", why ? why : "error");
        if (write(STDERR_FILENO, line, n < (int)sizeof line ? n : (int)sizeof line - 1) < 0) return;
    }
    static inline void uz_say_away(int error) {
        char line[256];
        int n = snprintf(line, sizeof line,
                         "uzswap: a forked child (%d) cannot have its parent's arrays (%s): access to them is SIGSEGV\\n",
                         (int)getpid(), strerrordesc_np(error) ? strerrordesc_np(error) : "error");
        if (write(STDERR_FILENO, line, n) < 0) return;
    }
    static inline void uz_say_broken(void) {
        static const char line[] = "uzswap: a thread that serves page faults was killed: "
                                   "what is not resident is lost, access to it is SIGBUS\\n";
        if (write(STDERR_FILENO, line, sizeof line - 1) < 0) return;
    }
    """
    ctypedef unsigned long pthread_t
    enum: UZ_NOTHING
    enum: UZ_READ
    enum: UZ_WRITE
    enum: UZ_PROTECTED
    enum: UZ_TAKEN_AWAY
    int uz_uffd_open(int want_user_only, uint64_t use, int *user_only, uint64_t *features) nogil
    int uz_uffd_register(int fd, void *p, size_t n, int protect) nogil
    int uz_uffd_unregister(int fd, void *p, size_t n) nogil
    int uz_uffd_protect(int fd, void *p, size_t n, int on) nogil
    int uz_map_nothing(void *p, size_t n) nogil
    int uz_map_again(int fd, void *p, size_t n, int protect) nogil
    int uz_as_reserved(void *p, size_t n) nogil
    int uz_pipe(int *ends) nogil
    void uz_pause(int ms) nogil
    int close(int fd) nogil
    int uz_uffd_take(int fd, uint64_t *address, uint64_t *nbytes) nogil
    int uz_own_descriptors(const int *keep, int n) nogil
    int uz_thread_id() nogil
    int uz_thread_lives(int tid) nogil
    int uz_thread_runs(int tid) nogil
    int64_t uz_thread_cpu_ns(int tid) nogil
    void uz_kill_self_with_sigbus() nogil
    void uz_say_broken() nogil
    int64_t uz_uffd_copy(int fd, void *dst, const void *src, size_t n) nogil
    int64_t uz_uffd_zero(int fd, void *dst, size_t n) nogil
    void uz_make_ours(char *p, size_t n) nogil
    int64_t uz_uffd_move(int fd, void *dst, void *src, size_t n) nogil
    int uz_uffd_wake(int fd, void *p, size_t n) nogil
    int64_t uz_uffd_poison(int fd, void *p, size_t n) nogil
    int uz_uffd_wait(int fd, int stop_fd) nogil
    int uz_uffd_wait_ms(int fd, int stop_fd, int ms) nogil
    void uz_say_away(int error) nogil
    int uz_thread_start(pthread_t *thread, void *(*run)(void *) noexcept nogil, void *arg, int cpu) nogil
    int uz_allowed_cpus(int *cpus, int most) nogil
    void uz_say_lost(const char *memcg, const char *array, uint64_t size, uint64_t offset, int error, int again) nogil
    int pthread_join(pthread_t thread, void **result) nogil
    enum: UFFD_FEATURE_EVENT_UNMAP
    enum: UFFD_FEATURE_SIGBUS
    enum: UZ_FEATURE_POISON
    enum: UZ_FEATURE_MOVE

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_cond_t:
        pass
    int pthread_cond_init(pthread_cond_t *cond, void *attr)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
    int pthread_cond_signal(pthread_cond_t *cond)
    int pthread_cond_broadcast(pthread_cond_t *cond)
    int uz_cond_init(pthread_cond_t *cond)
    int uz_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *mutex, int ms)

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
    #define UZ_FEATURE_POISON (1 << 14)
    #define UZ_FEATURE_MOVE (1 << 16)
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
    static int uz_uffd_open(int want_user_only, int *user_only, uint64_t *features) {
        int error = -ENOSYS;
        for (int way = want_user_only ? 2 : 0; way < 3; way++) {
            uint64_t offered = 0;
            int probe = uz_uffd_try(way == 2, way == 1, 0, &offered);
            if (probe < 0) { error = probe; continue; }
            close(probe);
            uint64_t wanted = offered & (UZ_FEATURE_POISON | UZ_FEATURE_MOVE);
            int fd = uz_uffd_try(way == 2, way == 1, wanted, &offered);
            if (fd < 0) { error = fd; continue; }
            *user_only = way == 2;
            *features = wanted;
            return fd;
        }
        return error;
    }
    static inline int uz_uffd_register(int fd, void *p, size_t n) {
        struct uffdio_register r = { .range = { (uint64_t)(uintptr_t)p, n }, .mode = UFFDIO_REGISTER_MODE_MISSING };
        return ioctl(fd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
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
    static inline int uz_uffd_wake(int fd, void *p, size_t n) {
        struct uffdio_range r = { (uint64_t)(uintptr_t)p, n };
        return ioctl(fd, UFFDIO_WAKE, &r) < 0 ? -errno : 0;
    }
    static inline int uz_uffd_poison(int fd, void *p, size_t n) {
        struct uz_poison r = { (uint64_t)(uintptr_t)p, n, 0, 0 };
        return ioctl(fd, UZ_IOC_POISON, &r) < 0 ? -errno : 0;
    }
    /* Waits for a fault: 1 with its address, 0 when there was none after all, -1 when stop_fd became readable. */
    static inline int uz_uffd_wait(int fd, int stop_fd, uint64_t *address, int *is_write) {
        struct uffd_msg msg;
        for (;;) {
            ssize_t n = read(fd, &msg, sizeof msg);
            if (n == sizeof msg) break;
            struct pollfd p[2] = { { fd, POLLIN, 0 }, { stop_fd, POLLIN, 0 } };
            if (poll(p, 2, -1) > 0 && p[1].revents) return -1;
        }
        if (msg.event != UFFD_EVENT_PAGEFAULT) return 0;
        *address = msg.arg.pagefault.address;
        *is_write = (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
        return 1;
    }
    static inline int uz_thread_start(pthread_t *thread, void *(*run)(void *), void *arg, int cpu) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int r = pthread_create(thread, NULL, run, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
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
    static inline void uz_say_lost(uint64_t address, uint32_t area, uint32_t memcg, int error) {
        fprintf(stderr, "uzswap: the page at %#lx of array %u (memcg %u) is lost: %s; access to it ends in SIGBUS\\n",
                (unsigned long)address, area, memcg, strerror(error));
    }
    """
    ctypedef unsigned long pthread_t
    int uz_uffd_open(int want_user_only, int *user_only, uint64_t *features) nogil
    int uz_uffd_register(int fd, void *p, size_t n) nogil
    int64_t uz_uffd_copy(int fd, void *dst, const void *src, size_t n) nogil
    int64_t uz_uffd_zero(int fd, void *dst, size_t n) nogil
    int64_t uz_uffd_move(int fd, void *dst, void *src, size_t n) nogil
    int uz_uffd_wake(int fd, void *p, size_t n) nogil
    int uz_uffd_poison(int fd, void *p, size_t n) nogil
    int uz_uffd_wait(int fd, int stop_fd, uint64_t *address, int *is_write) nogil
    int uz_thread_start(pthread_t *thread, void *(*run)(void *) noexcept nogil, void *arg, int cpu) nogil
    int uz_allowed_cpus(int *cpus, int most) nogil
    void uz_say_lost(uint64_t address, uint32_t area, uint32_t memcg, int error) nogil
    int pthread_join(pthread_t thread, void **result) nogil
    enum: UZ_FEATURE_POISON
    enum: UZ_FEATURE_MOVE

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_cond_t:
        pass
    int pthread_cond_init(pthread_cond_t *cond, void *attr)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
    int pthread_cond_broadcast(pthread_cond_t *cond)

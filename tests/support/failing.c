/* Preloaded by support.failing: calls of libc that fail on command, and a wall clock that is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

enum { MALLOC, CALLOC, POSIX_MEMALIGN, MMAP, MADVISE, PTHREAD_CREATE, UFFD_COPY, UFFD_ZEROPAGE, UFFD_MOVE, KINDS };

static struct {
    atomic_long met, after, count, error, least;
} plans[KINDS];
static atomic_long ahead;

/* Of the calls of this kind for at least `least` bytes, `after` more succeed, then `count` fail. */
void failing_plan(int kind, long after, long count, long error, long least) {
    plans[kind].count = 0;
    plans[kind].met = 0;
    plans[kind].after = after;
    plans[kind].error = error;
    plans[kind].least = least;
    plans[kind].count = count;
}
long failing_met(int kind) { return plans[kind].met; }
void failing_clock(long seconds) { ahead = seconds; }

static int fails(int kind, size_t bytes) {
    if (!plans[kind].count || bytes < (size_t)plans[kind].least) return 0;
    long n = plans[kind].met++;
    return n >= plans[kind].after && n < plans[kind].after + plans[kind].count;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* dlsym() allocates: these are reached by the names that glibc has for them itself. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t n) {
    if (!fails(MALLOC, n)) return __libc_malloc(n);
    errno = ENOMEM;
    return NULL;
}
void *calloc(size_t n, size_t size) {
    if (!fails(CALLOC, n * size)) return __libc_calloc(n, size);
    errno = ENOMEM;
    return NULL;
}
int posix_memalign(void **p, size_t align, size_t n) {
    *p = fails(POSIX_MEMALIGN, n) ? NULL : __libc_memalign(align, n);
    return *p ? 0 : ENOMEM;
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    if (!fails(MMAP, n)) return REAL(mmap)(at, n, protection, flags, fd, offset);
    errno = plans[MMAP].error;
    return MAP_FAILED;
}
int madvise(void *at, size_t n, int advice) {
    if (!fails(MADVISE, n)) return REAL(madvise)(at, n, advice);
    errno = plans[MADVISE].error;
    return -1;
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
    return fails(PTHREAD_CREATE, 0) ? plans[PTHREAD_CREATE].error : REAL(pthread_create)(thread, attr, run, arg);
}
int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, void *);
    va_list list;
    va_start(list, request);
    void *arg = va_arg(list, void *);
    va_end(list);
    if (!real) real = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    int kind = -1;
    size_t done = 0;
    switch (request & 0xFFFF) {
    case 0xAA03: kind = UFFD_COPY; done = offsetof(struct uffdio_copy, copy); break;
    case 0xAA04: kind = UFFD_ZEROPAGE; done = offsetof(struct uffdio_zeropage, zeropage); break;
    case 0xAA05: kind = UFFD_MOVE; done = 32; break; /* struct uffdio_move, which older headers lack */
    }
    if (kind < 0 || !fails(kind, 0)) return real(fd, request, arg);
    /* Linux 6.18 may find there what it has just moved (frames.take_pages()). */
    if (kind == UFFD_MOVE && plans[kind].error == EEXIST && real(fd, request, arg) < 0) return -1;
    *(int64_t *)((char *)arg + done) = 0;
    errno = plans[kind].error;
    return -1;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = REAL(clock_gettime);
    int result = real(clock, t);
    if (clock == CLOCK_REALTIME) t->tv_sec += ahead;
    return result;
}

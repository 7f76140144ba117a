/* Preloaded by support.failing: calls of libc that fail, lie or dawdle on command, and a wall clock that is wrong.
 *
 * The engine's calls all go through libc, its raw system calls through syscall(); so all of them can be told to fail,
 * and those of the engine alone, by where they come from.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* As KINDS of failing.py. */
enum {
    MALLOC, CALLOC, REALLOC, POSIX_MEMALIGN, MMAP, MUNMAP, MPROTECT, MADVISE, PTHREAD_CREATE,
    PWRITE, PREAD, FALLOCATE, FTRUNCATE, SYNC_FILE_RANGE, OPEN, PIPE,
    IO_SETUP, IO_SUBMIT, IO_GETEVENTS, USERFAULTFD, CLOSE_RANGE,
    CALL_API, CALL_REGISTER, CALL_UNREGISTER, CALL_WAKE, CALL_COPY, CALL_ZEROPAGE, CALL_MOVE, CALL_WRITEPROTECT,
    CALL_POISON, KINDS
};
/* As MODES.  What is done instead of the call: it fails with the errno; or part of it is done, and said (SHORT) or not
 * (TORN); nothing is done, and success is said (LOST); one bit is another (FLIP); it is done in another segment
 * (ASTRAY); it is done later (LATE). */
enum { FAIL, SHORT, TORN, LOST, FLIP, ASTRAY, LATE };

static struct {
    atomic_long met, after, count, error, least, mode, struck;
} plans[KINDS];
static atomic_long ahead;
static atomic_int ours_only, never_direct;

/* Where the engine's own code is, so that Python's calls can be told from it. */
enum { MOST_RANGES = 256 };
static struct { uintptr_t begin, end; } ranges[MOST_RANGES];
static int nr_ranges;

static int collect(struct dl_phdr_info *info, size_t size, void *name) {
    (void)size;
    if (!info->dlpi_name || !strstr(info->dlpi_name, name)) return 0;
    for (int i = 0; i < info->dlpi_phnum && nr_ranges < MOST_RANGES; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X)) continue;
        ranges[nr_ranges].begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        ranges[nr_ranges].end = ranges[nr_ranges].begin + info->dlpi_phdr[i].p_memsz;
        nr_ranges++;
    }
    return 0;
}
/* Meet only calls that come from libraries with this in their path; all that are loaded later are not among them. */
void failing_only(const char *part_of_path) {
    nr_ranges = 0;
    dl_iterate_phdr(collect, (void *)part_of_path);
    ours_only = 1;
}
static int is_ours(const void *from) {
    for (int i = 0; i < nr_ranges; i++)
        if ((uintptr_t)from >= ranges[i].begin && (uintptr_t)from < ranges[i].end) return 1;
    return 0;
}

/* Of the calls of this kind for at least `least` bytes, `after` more succeed, then `count` are as `mode` says. */
void failing_plan(int kind, long after, long count, long error, long least, long mode) {
    plans[kind].count = 0;
    plans[kind].met = plans[kind].struck = 0;
    plans[kind].after = after;
    plans[kind].error = error;
    plans[kind].least = least;
    plans[kind].mode = mode;
    plans[kind].count = count;
}
/* Refuse all memory at once, or end that; how often it was refused. */
long failing_memory(int refuse) {
    long refused = 0;
    for (int kind = MALLOC; kind <= MMAP; kind++) {
        refused += plans[kind].struck;
        failing_plan(kind, 0, refuse ? 1L << 40 : 0, ENOMEM, 0, FAIL);
    }
    return refused;
}
long failing_met(int kind) { return plans[kind].met; }
long failing_struck(int kind) { return plans[kind].struck; }
void failing_direct(int never) { never_direct = never; }
void failing_clock(long seconds) { ahead = seconds; }

static int fails_from(const void *from, int kind, size_t bytes) {
    if (!plans[kind].count || bytes < (size_t)plans[kind].least || (ours_only && !is_ours(from))) return 0;
    long n = plans[kind].met++;
    if (n < plans[kind].after || n >= plans[kind].after + plans[kind].count) return 0;
    plans[kind].struck++;
    if (plans[kind].mode != LATE) return 1;
    nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    return 0;
}
#define fails(kind, bytes) fails_from(__builtin_return_address(0), kind, bytes)
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* dlsym() allocates: these are reached by the names that glibc has for them itself, or a sanitizer, whose free() it is
 * then. */
#define ALLOCATOR(result, name, types, values) \
    extern result __libc_##name types; \
    extern result __interceptor_##name types __attribute__((weak)); \
    static result real_##name types { return __interceptor_##name ? __interceptor_##name values : __libc_##name values; }
ALLOCATOR(void *, malloc, (size_t n), (n))
ALLOCATOR(void *, calloc, (size_t n, size_t size), (n, size))
ALLOCATOR(void *, realloc, (void *p, size_t n), (p, n))
ALLOCATOR(void *, memalign, (size_t align, size_t n), (align, n))

void *malloc(size_t n) {
    if (!fails(MALLOC, n)) return real_malloc(n);
    errno = ENOMEM;
    return NULL;
}
void *calloc(size_t n, size_t size) {
    if (!fails(CALLOC, n * size)) return real_calloc(n, size);
    errno = ENOMEM;
    return NULL;
}
void *realloc(void *p, size_t n) {
    if (!fails(REALLOC, n)) return real_realloc(p, n);
    errno = ENOMEM;
    return NULL;
}
int posix_memalign(void **p, size_t align, size_t n) {
    *p = fails(POSIX_MEMALIGN, n) ? NULL : real_memalign(align, n);
    return *p ? 0 : ENOMEM;
}
static void *map(const void *from, void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    if (!fails_from(from, MMAP, n)) return REAL(mmap)(at, n, protection, flags, fd, offset);
    errno = plans[MMAP].error;
    return MAP_FAILED;
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    return map(__builtin_return_address(0), at, n, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    return map(__builtin_return_address(0), at, n, protection, flags, fd, offset);
}
int munmap(void *at, size_t n) {
    if (!fails(MUNMAP, n)) return REAL(munmap)(at, n);
    errno = plans[MUNMAP].error;
    return -1;
}
int mprotect(void *at, size_t n, int protection) {
    if (!fails(MPROTECT, n)) return REAL(mprotect)(at, n, protection);
    errno = plans[MPROTECT].error;
    return -1;
}
int madvise(void *at, size_t n, int advice) {
    if (!fails(MADVISE, n)) return REAL(madvise)(at, n, advice);
    errno = plans[MADVISE].error;
    return -1;
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
    return fails(PTHREAD_CREATE, 0) ? plans[PTHREAD_CREATE].error : REAL(pthread_create)(thread, attr, run, arg);
}
int pipe2(int ends[2], int flags) {
    if (!fails(PIPE, 0)) return REAL(pipe2)(ends, flags);
    errno = plans[PIPE].error;
    return -1;
}
int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    va_list list;
    va_start(list, flags);
    int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, int) : 0;
    va_end(list);
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    if (flags & O_DIRECT && never_direct) errno = EINVAL;
    else if (fails(OPEN, 0)) errno = plans[OPEN].error;
    else return real(path, flags, mode);
    return -1;
}

/* The device. */

enum { BLOCK = 4096, SEGMENT = 1 << 20 };

static size_t half(size_t n) { return n / 2 & ~(size_t)(BLOCK - 1); }
static void flip(char *p, size_t n, long salt) { p[(size_t)(salt * 2654435761u) % n] ^= 1 << (salt & 7); }

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset) {
    __typeof__(&pwrite64) real = REAL(pwrite64);
    if (!fails(PWRITE, n)) return real(fd, buf, n, offset);
    switch (plans[PWRITE].mode) {
    case SHORT: return real(fd, buf, half(n) ? half(n) : n, offset);
    case TORN: return half(n) && real(fd, buf, half(n), offset) < 0 ? -1 : (ssize_t)n;
    case LOST: return n;
    case FLIP: flip((char *)buf, n, plans[PWRITE].after); return real(fd, buf, n, offset);
    case ASTRAY: return real(fd, buf, n, offset ^ SEGMENT);
    }
    errno = plans[PWRITE].error;
    return -1;
}
ssize_t pread64(int fd, void *buf, size_t n, off64_t offset) {
    __typeof__(&pread64) real = REAL(pread64);
    if (!fails(PREAD, n)) return real(fd, buf, n, offset);
    ssize_t got = -1;
    switch (plans[PREAD].mode) {
    case SHORT: return real(fd, buf, half(n) ? half(n) : n, offset);
    case TORN: return half(n) && real(fd, buf, half(n), offset) < 0 ? -1 : (ssize_t)n;
    case LOST: return n;  /* what was read before is there */
    case FLIP:
        got = real(fd, buf, n, offset);
        if (got > 0) flip(buf, got, plans[PREAD].after);
        return got;
    case ASTRAY:
        got = real(fd, buf, n, offset ^ SEGMENT);
        if (got >= 0 && (size_t)got < n) memset((char *)buf + got, 0, n - got);
        return n;
    }
    errno = plans[PREAD].error;
    return -1;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t n) {
    if (!fails(FALLOCATE, 0)) return REAL(fallocate64)(fd, mode, offset, n);
    if (plans[FALLOCATE].mode == LOST) return 0;
    errno = plans[FALLOCATE].error;
    return -1;
}
int ftruncate64(int fd, off64_t n) {
    if (!fails(FTRUNCATE, 0)) return REAL(ftruncate64)(fd, n);
    errno = plans[FTRUNCATE].error;
    return -1;
}
int sync_file_range(int fd, off64_t offset, off64_t n, unsigned flags) {
    if (!fails(SYNC_FILE_RANGE, 0)) return REAL(sync_file_range)(fd, offset, n, flags);
    errno = plans[SYNC_FILE_RANGE].error;
    return -1;
}

typedef long (*Syscall)(long, ...);

/* One asynchronous write, done otherwise; it says -1 with errno, or 0: go on with what is in cb now. */
static int submit_otherwise(Syscall real, struct iocb *cb) {
    char *buf = (char *)(uintptr_t)cb->aio_buf;
    size_t n = cb->aio_nbytes;
    switch (plans[IO_SUBMIT].mode) {
    case SHORT: if (half(n)) cb->aio_nbytes = half(n); return 0;
    case FLIP: flip(buf, n, plans[IO_SUBMIT].after); return 0;
    case ASTRAY: cb->aio_offset ^= SEGMENT; return 0;
    case TORN: if (half(n) && REAL(pwrite64)(cb->aio_fildes, buf, half(n), cb->aio_offset) < 0) return -1; /* FALLTHROUGH */
    case LOST: {
        /* In the table of whichever thread this is. */
        int nowhere = memfd_create("lost", MFD_CLOEXEC);
        if (nowhere < 0) return -1;
        cb->aio_fildes = nowhere;
        cb->aio_offset = 0;
        return 0;
    }
    }
    (void)real;
    errno = plans[IO_SUBMIT].error;
    return -1;
}
long syscall(long nr, ...) {
    static Syscall real;
    const void *from = __builtin_return_address(0);
    va_list list;
    va_start(list, nr);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (!real) real = (Syscall)dlsym(RTLD_NEXT, "syscall");
    int kind = nr == SYS_io_setup ? IO_SETUP : nr == SYS_io_submit ? IO_SUBMIT : nr == SYS_io_getevents ? IO_GETEVENTS
             : nr == SYS_userfaultfd ? USERFAULTFD : nr == SYS_close_range ? CLOSE_RANGE : -1;
    if (kind < 0 || !fails_from(from, kind, 0)) return real(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (kind == IO_SUBMIT) {
        struct iocb *cb = ((struct iocb **)a[2])[0];
        int fd = cb->aio_fildes;
        if (submit_otherwise(real, cb)) return -1;
        long r = real(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (cb->aio_fildes != (unsigned)fd) close(cb->aio_fildes);
        return r;
    }
    if (kind == IO_GETEVENTS && plans[kind].mode != FAIL) {
        long r = real(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        struct io_event *event = (struct io_event *)a[3];
        if (r == 1) event->res = plans[kind].mode == SHORT ? (long)half(event->res) : -plans[kind].error;
        return r;
    }
    errno = plans[kind].error;
    return -1;
}

int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, void *);
    const void *from = __builtin_return_address(0);
    va_list list;
    va_start(list, request);
    void *arg = va_arg(list, void *);
    va_end(list);
    if (!real) real = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    int kind = -1;
    size_t done = 0;
    switch (request & 0xFFFF) {
    case 0xAA3F: kind = CALL_API; break;
    case 0xAA00: kind = (request >> 30) ? CALL_REGISTER : -1; break;
    case 0xAA01: kind = CALL_UNREGISTER; break;
    case 0xAA02: kind = CALL_WAKE; break;
    case 0xAA03: kind = CALL_COPY; done = offsetof(struct uffdio_copy, copy); break;
    case 0xAA04: kind = CALL_ZEROPAGE; done = offsetof(struct uffdio_zeropage, zeropage); break;
    case 0xAA05: kind = CALL_MOVE; done = 32; break; /* struct uffdio_move, which older headers lack */
    case 0xAA06: kind = CALL_WRITEPROTECT; break;
    case 0xAA08: kind = CALL_POISON; done = 24; break;
    }
    if (kind < 0 || !fails_from(from, kind, 0)) return real(fd, request, arg);
    /* Linux 6.18 may find there what it has just moved (frames.take_pages()). */
    if (kind == CALL_MOVE && plans[kind].error == EEXIST && real(fd, request, arg) < 0) return -1;
    if (done) *(int64_t *)((char *)arg + done) = 0;
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

/* Page faults served in user space, bare: who may serve them, and how modified pages can be told.
 *
 * Compiled and loaded by benchmarks/faults.py.  Every run makes its own userfaultfd, region and threads, goes over the
 * region once to warm it, and returns nanoseconds for all pages of the pass that counts, or -errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define BATCH 64 /* pages that one call protects or scans, as many as uzswap evicts at once */
#define MOST_SERVERS 64

/* Linux 6.7; not in the headers of Debian 12. */
#define WP_UNPOPULATED (1ULL << 13)
#define WP_ASYNC (1ULL << 15)
#define IS_WRITTEN (1ULL << 1)
struct scanned {
    uint64_t start, end, categories;
};
struct scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct scan)

enum action { BRING, UNPROTECT };

struct bench {
    int uffd, stop, cpu;
    enum action action;
    char *region, *source;
    int64_t pages, touch_ns, protect_ns, scan_ns;
    int error;
};

/* One at a time: for the signal handler, which gets no argument. */
static struct bench *current;
static struct sigaction previous;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t one;
    if (cpu < 0)
        return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static int open_uffd(uint64_t features)
{
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = { .api = UFFD_API, .features = features };
    if (fd < 0)
        return -errno;
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int protect(struct bench *b, char *at, int64_t pages, int on)
{
    struct uffdio_writeprotect w = {
        .range = { (uintptr_t)at, pages * PAGE },
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };
    return ioctl(b->uffd, UFFDIO_WRITEPROTECT, &w) < 0 ? -errno : 0;
}

static int resolve(struct bench *b, char *at)
{
    struct uffdio_copy copy = { .dst = (uintptr_t)at, .src = (uintptr_t)b->source, .len = PAGE };
    if (b->action == UNPROTECT)
        return protect(b, at, 1, 0);
    return ioctl(b->uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST ? -errno : 0;
}

struct server {
    struct bench *bench;
    int cpu;
};

static void *serve(void *arg)
{
    struct server *me = arg;
    struct bench *b = me->bench;
    struct pollfd wait[2] = { { b->uffd, POLLIN, 0 }, { b->stop, POLLIN, 0 } };
    struct uffd_msg message;
    pin(me->cpu);
    for (;;) {
        if (read(b->uffd, &message, sizeof message) == sizeof message)
            resolve(b, (char *)(uintptr_t)(message.arg.pagefault.address & ~(uint64_t)(PAGE - 1)));
        else if (poll(wait, 2, -1) > 0 && wait[1].revents)
            return NULL;
    }
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    char *at = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
    (void)context;
    /* Somebody else's, or it cannot be resolved: the access is repeated under the handler that was there before. */
    if (at < current->region || at >= current->region + current->pages * PAGE || resolve(current, at) != 0)
        sigaction(number, &previous, NULL);
}

static void touch(struct bench *b)
{
    for (int64_t i = 0; i < b->pages; i++)
        ((volatile char *)b->region)[i * PAGE] = 1;
}

static void *fault_missing(void *arg)
{
    struct bench *b = arg;
    pin(b->cpu);
    touch(b);
    madvise(b->region, b->pages * PAGE, MADV_DONTNEED);
    int64_t start = now();
    touch(b);
    b->touch_ns = now() - start;
    return NULL;
}

static int protect_all(struct bench *b)
{
    for (int64_t i = 0; i < b->pages; i += BATCH) {
        int error = protect(b, b->region + i * PAGE, BATCH, 1);
        if (error)
            return error;
    }
    return 0;
}

static void *fault_protected(void *arg)
{
    struct bench *b = arg;
    pin(b->cpu);
    touch(b);
    for (int pass = 0; pass < 2 && !b->error; pass++) {
        int64_t start = now();
        b->error = protect_all(b);
        b->protect_ns = now() - start;
        start = now();
        touch(b);
        b->touch_ns = now() - start;
    }
    return NULL;
}

static int scan_all(struct bench *b)
{
    struct scanned found[BATCH];
    int64_t written = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), error = 0;
    if (fd < 0)
        return -errno;
    int64_t start = now();
    for (int64_t i = 0; i < b->pages && !error; i += BATCH) {
        struct scan scan = {
            .size = sizeof scan,
            .start = (uintptr_t)b->region + i * PAGE,
            .end = (uintptr_t)b->region + (i + BATCH) * PAGE,
            .vec = (uintptr_t)found,
            .vec_len = BATCH,
            .category_mask = IS_WRITTEN,
            .return_mask = IS_WRITTEN,
        };
        int n = ioctl(fd, PAGEMAP_SCAN_IOCTL, &scan);
        if (n < 0)
            error = -errno;
        for (int k = 0; k < n; k++)
            written += (found[k].end - found[k].start) / PAGE;
    }
    b->scan_ns = now() - start;
    close(fd);
    return error ? error : written == b->pages ? 0 : -EPROTO;
}

static int set_up(struct bench *b, uint64_t features, uint64_t mode)
{
    size_t length = (b->pages + 1) * PAGE;
    b->region = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->region == MAP_FAILED)
        return -errno;
    madvise(b->region, length, MADV_NOHUGEPAGE);
    b->source = b->region + b->pages * PAGE;
    b->source[0] = 1;
    b->stop = eventfd(0, EFD_CLOEXEC);
    b->uffd = open_uffd(features);
    if (b->uffd < 0)
        return b->uffd;
    struct uffdio_register r = { .range = { (uintptr_t)b->region, b->pages * PAGE }, .mode = mode };
    return ioctl(b->uffd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}

static void tear_down(struct bench *b)
{
    if (b->region != MAP_FAILED)
        munmap(b->region, (b->pages + 1) * PAGE);
    if (b->uffd >= 0)
        close(b->uffd);
    if (b->stop >= 0)
        close(b->stop);
}

static int run(struct bench *b, void *(*faulter)(void *))
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, faulter, b);
    if (error)
        return -error;
    pthread_join(thread, NULL);
    return b->error;
}

static int run_served(struct bench *b, void *(*faulter)(void *), const int *cpus, int servers)
{
    pthread_t threads[MOST_SERVERS];
    struct server arguments[MOST_SERVERS];
    int started = 0, error = 0;
    for (; started < servers && started < MOST_SERVERS && !error; started += !error) {
        arguments[started] = (struct server){ b, cpus[started] };
        error = -pthread_create(&threads[started], NULL, serve, &arguments[started]);
    }
    if (!error)
        error = run(b, faulter);
    eventfd_write(b->stop, 1);
    while (started)
        pthread_join(threads[--started], NULL);
    return error;
}

static int run_sigbus(struct bench *b, void *(*faulter)(void *))
{
    struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART };
    current = b;
    sigaction(SIGBUS, &action, &previous);
    int error = run(b, faulter);
    sigaction(SIGBUS, &previous, NULL);
    current = NULL;
    return error;
}

static int dispatch(struct bench *b, void *(*faulter)(void *), uint64_t mode, const int *cpus, int servers)
{
    int error = set_up(b, servers ? 0 : UFFD_FEATURE_SIGBUS, mode);
    if (!error)
        error = servers ? run_served(b, faulter, cpus, servers) : run_sigbus(b, faulter);
    tear_down(b);
    return error;
}

/* Missing pages brought by UFFDIO_COPY: by one thread for each entry of cpus (-1: not pinned), or, without servers, by
 * the faulting thread itself in a SIGBUS handler.  faulter_cpu -1: not pinned. */
int64_t faults_missing(int64_t pages, int faulter_cpu, const int *cpus, int servers)
{
    struct bench b = { .uffd = -1, .stop = -1, .cpu = faulter_cpu, .action = BRING, .pages = pages };
    int error = dispatch(&b, fault_missing, UFFDIO_REGISTER_MODE_MISSING, cpus, servers);
    return error ? error : b.touch_ns;
}

/* The first write to protected pages, resolved as above; in times: protecting in batches, the writes. */
int faults_protected(int64_t pages, const int *cpus, int servers, int64_t *times)
{
    struct bench b = { .uffd = -1, .stop = -1, .cpu = -1, .action = UNPROTECT, .pages = pages };
    int error = dispatch(&b, fault_protected, UFFDIO_REGISTER_MODE_WP, cpus, servers);
    times[0] = b.protect_ns;
    times[1] = b.touch_ns;
    return error;
}

/* The same where the kernel resolves the write at once and notes it; in times: also PAGEMAP_SCAN in batches. */
int faults_async(int64_t pages, int64_t *times)
{
    struct bench b = { .uffd = -1, .stop = -1, .cpu = -1, .action = UNPROTECT, .pages = pages };
    int error = set_up(&b, WP_ASYNC | WP_UNPOPULATED, UFFDIO_REGISTER_MODE_WP);
    if (!error)
        error = run(&b, fault_protected);
    if (!error)
        error = scan_all(&b);
    tear_down(&b);
    times[0] = b.protect_ns;
    times[1] = b.touch_ns;
    times[2] = b.scan_ns;
    return error;
}

/* The process's handler of SIGBUS: whose fault it is, and who gets what is not ours.

   Its state is the process's, so handlers.py alone may include it.  x86-64 alone is supported. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <dlfcn.h>
#include "calls.h"

#ifdef __x86_64__

/* As the kernel has it, not libc. */
struct uz_kernel_action { void *handler; unsigned long flags; void *restorer; uint64_t mask; };

/* Not by libc, whose every sigaction() of SIGBUS is refused by then (trap.py). */
static long uz_call_kernel(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    long result;
    register uint64_t r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

#define UZ_ADDRESS(x) ((uint64_t)(uintptr_t)(x))

static uz_fault uz_fault_server;
static int uz_bus_pid; /* whose handlers these are: a child of vfork() has the same memory */

/* Who gets what is not ours.  Read in handlers, so without a lock: an odd version says that it is being changed. */
static struct sigaction uz_next;
static unsigned uz_next_version;

/* A fault that keeps coming after its handler has returned is not being mended.  More often than a page may be taken
   away again before the instruction is repeated, which takes luck each time. */
enum { UZ_VAIN = 1000, UZ_THREADS = 64 };
/* By the last bits of their numbers: one that meets another's begins to count anew. */
static struct uz_passed { int tid, within; uint64_t at, address; unsigned times; } uz_passed[UZ_THREADS];

static unsigned uz_next_read(struct sigaction *next) {
    for (;;) {
        unsigned version = __atomic_load_n(&uz_next_version, __ATOMIC_ACQUIRE);
        *next = *(volatile struct sigaction *)&uz_next;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(version & 1) && version == __atomic_load_n(&uz_next_version, __ATOMIC_RELAXED)) return version;
        sched_yield();
    }
}

/* With every signal blocked: a handler of this thread that changes it, or reads it, would wait for itself. */
static void uz_next_write(const struct sigaction *next, struct sigaction *before) {
    uint64_t all = ~0ull, mask;
    uz_call_kernel(SYS_rt_sigprocmask, SIG_SETMASK, UZ_ADDRESS(&all), UZ_ADDRESS(&mask), 8);
    for (;;) {
        unsigned version = __atomic_load_n(&uz_next_version, __ATOMIC_RELAXED) & ~1u;
        if (__atomic_compare_exchange_n(&uz_next_version, &version, version + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            break;
        sched_yield();
    }
    if (before) *before = uz_next;
    if (next) uz_next = *next;
    __atomic_add_fetch(&uz_next_version, 1, __ATOMIC_RELEASE);
    uz_call_kernel(SYS_rt_sigprocmask, SIG_SETMASK, UZ_ADDRESS(&mask), 0, 8);
}

/* The end of the process, as without us: by the access itself, when it is made again, or by the signal sent again. */
static void uz_end(const siginfo_t *info) {
    struct uz_kernel_action by_default = { 0 };
    uz_call_kernel(SYS_rt_sigaction, SIGBUS, UZ_ADDRESS(&by_default), 0, 8);
    if (info->si_code <= 0) uz_call_kernel(SYS_tgkill, getpid(), uz_call_kernel(SYS_gettid, 0, 0, 0, 0), SIGBUS, 0);
}

static void uz_pass_on(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    struct sigaction next, by_default = { .sa_handler = SIG_DFL };
    int tid = (int)uz_call_kernel(SYS_gettid, 0, 0, 0, 0), sent = info->si_code <= 0;
    struct uz_passed *p = &uz_passed[tid % UZ_THREADS];
    uint64_t at = (uint64_t)c->uc_mcontext.gregs[REG_RIP], address = sent ? 0 : UZ_ADDRESS(info->si_addr), mask = 0;
    unsigned version = uz_next_read(&next);
    if (p->tid != tid || p->at != at || p->address != address) {
        int within = p->tid == tid ? p->within : 0;
        *p = (struct uz_passed){ .tid = tid, .within = within, .at = at, .address = address };
    }
    /* A handler that sends the signal again believes that it has put back the one before it (faulthandler). */
    int again = sent && p->within == (int)version + 1 && info->si_pid == getpid();
    int is_default = !(next.sa_flags & SA_SIGINFO) && next.sa_handler == SIG_DFL;
    int ignored = !(next.sa_flags & SA_SIGINFO) && next.sa_handler == SIG_IGN;
    if (sent && ignored) return;
    if (is_default || ignored || again || (!sent && ++p->times > UZ_VAIN)) {
        uz_end(info);
        return;
    }
    if (next.sa_flags & SA_RESETHAND) uz_next_write(&by_default, NULL);
    /* As it would run without us, but that SIGBUS is not blocked: it may touch arrays, too. */
    for (int s = 1; s < 65; s++)
        if (s != SIGBUS && (sigismember(&next.sa_mask, s) == 1 || sigismember(&c->uc_sigmask, s) == 1))
            mask |= 1ull << (s - 1);
    int before = p->within;
    p->within = (int)version + 1;
    uz_call_kernel(SYS_rt_sigprocmask, SIG_SETMASK, UZ_ADDRESS(&mask), 0, 8);
    if (next.sa_flags & SA_SIGINFO) next.sa_sigaction(number, info, context);
    else next.sa_handler(number);
    p->within = before;
}

static void uz_on_sigbus(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    int saved = errno, state, mended = 0;
    if (info->si_code > 0) {
        /* What waits here would be a point of cancellation. */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
        mended = uz_fault_server(UZ_ADDRESS(info->si_addr), (c->uc_mcontext.gregs[REG_ERR] & 2) != 0,
                                 info->si_code == BUS_MCEERR_AR);
        errno = saved;
        pthread_setcancelstate(state, NULL);
    }
    if (!mended) uz_pass_on(number, info, context);
    errno = saved;
}

/* sigaction(SIGBUS) of whoever comes through the wrappers of preload.c: who comes later is who gets what is not ours. */
static int uz_action(const struct sigaction *action, struct sigaction *before) {
    if (getpid() == uz_bus_pid) {
        uz_next_write(action, before);
        return 0;
    }
    /* Between vfork() and exec(): the memory is the parent's, the handlers are not. */
    struct uz_kernel_action now = { 0 }, was = { 0 };
    if (action) now.handler = (void *)action->sa_handler;
    if (action && action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN) { errno = EINVAL; return -1; }
    uz_call_kernel(SYS_rt_sigaction, SIGBUS, action ? UZ_ADDRESS(&now) : 0, UZ_ADDRESS(&was), 8);
    if (before) *before = uz_next;
    return 0;
}

static struct uz_kernel_action uz_bus_action; /* ours, as libc has made it */

/* Put ours back before one that took its place; whether one had. */
static int uz_bus_reclaim(void) {
    struct uz_kernel_action theirs;
    struct sigaction next = { .sa_flags = 0 };
    uz_call_kernel(SYS_rt_sigaction, SIGBUS, 0, UZ_ADDRESS(&theirs), 8);
    if (theirs.handler == uz_bus_action.handler) return 0;
    uz_call_kernel(SYS_rt_sigaction, SIGBUS, UZ_ADDRESS(&uz_bus_action), UZ_ADDRESS(&theirs), 8);
    next.sa_handler = (__typeof__(next.sa_handler))theirs.handler;
    next.sa_flags = (int)(theirs.flags & ~0x04000000ul /* SA_RESTORER */);
    memcpy(&next.sa_mask, &theirs.mask, sizeof theirs.mask);
    uz_next_write(&next, NULL);
    return 1;
}

/* Have faults served by `serve` in the threads that they are in.  Once a process.  0 or -errno. */
static int uz_bus_open(uz_fault serve) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction action = { .sa_sigaction = uz_on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
    int failed = 0;
    pthread_mutex_lock(&lock);
    if (uz_bus_action.handler) {
        uz_bus_reclaim();
    } else {
        uz_fault_server = serve;
        uz_bus_pid = getpid();
        memset(&action.sa_mask, 0xff, sizeof action.sa_mask); /* libc's own as well, which sigfillset() leaves out */
        sigdelset(&action.sa_mask, SIGBUS); /* who blocks it is told of */
        /* Not on an alternate stack, which may be smaller than what a fault takes, and in use. */
        if (sigaction(SIGBUS, NULL, &uz_next) || sigaction(SIGBUS, &action, NULL)) failed = -errno;
        if (!failed) uz_call_kernel(SYS_rt_sigaction, SIGBUS, 0, UZ_ADDRESS(&uz_bus_action), 8);
        struct uz_handlers *wrappers = dlsym(RTLD_DEFAULT, "uzswap_handlers_1");
        if (wrappers && !failed) __atomic_store_n(&wrappers->action, uz_action, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    return failed;
}

/* In a forked child: who was changing something there is not here. */
static void uz_bus_forked(void) {
    if (uz_bus_pid) uz_bus_pid = getpid();
    uz_next_version &= ~1u;
}

/* The numbers of up to `most` threads that block SIGBUS, ours apart.  How many. */
static int uz_bus_blockers(int *tids, int most) {
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    int found = 0;
    while (tasks && found < most && (task = readdir(tasks))) {
        char path[64], status[4096];
        const char *blocked;
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%.16s/status", task->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, status, sizeof status - 1) : -1;
        if (fd >= 0) close(fd);
        if (n <= 0) continue;
        status[n] = 0;
        blocked = strstr(status, "\nSigBlk:");
        /* Ours touch no array. */
        if (!blocked || !strncmp(status, "Name:\tuzswap\n", 13)) continue;
        if (strtoull(blocked + 8, NULL, 16) & 1ull << (SIGBUS - 1)) tids[found++] = atoi(task->d_name);
    }
    if (tasks) closedir(tasks);
    return found;
}

static int uz_bus_is_blocked(void) {
    uint64_t mask = 0;
    uz_call_kernel(SYS_rt_sigprocmask, SIG_BLOCK, 0, UZ_ADDRESS(&mask), 8);
    return (mask & 1ull << (SIGBUS - 1)) != 0;
}

static void uz_say_bus(const char *text, int tid) {
    char line[320];
    int n = snprintf(line, sizeof line, "uzswap: %s%.0d%s\n", text, tid,
                     tid ? " blocks SIGBUS: with faults=\"signal\" the kernel kills the process when it touches an array "
                           "of which a page is not resident"
                         : "");
    if (write(STDERR_FILENO, line, n < (int)sizeof line ? n : (int)sizeof line - 1) < 0) return;
}

/* Have a look, now and then, at what nobody tells: handlers of code that passes libc by, and threads that block SIGBUS.
   One that does so for a moment touches no array meanwhile (libc, while it makes a thread): so it is told of when it
   is found a second time, and once. */
static void uz_bus_look(int faulted) {
    static int before[UZ_THREADS], told[UZ_THREADS], nr_before, nr_told;
    int now[UZ_THREADS], n = faulted ? uz_bus_blockers(now, UZ_THREADS) : 0;
    if (uz_bus_reclaim())
        uz_say_bus("somebody has put a handler of SIGBUS in the place of ours; it gets what is not a fault on an array", 0);
    if (!faulted) return; /* nothing that takes long is done for an idle program */
    for (int i = 0; i < n; i++) {
        int seen = 0, known = 0;
        for (int k = 0; k < nr_before; k++) seen |= before[k] == now[i];
        for (int k = 0; k < nr_told; k++) known |= told[k] == now[i];
        if (!seen || known || nr_told == UZ_THREADS) continue;
        told[nr_told++] = now[i];
        uz_say_bus("thread ", now[i]);
    }
    memcpy(before, now, n * sizeof *now);
    nr_before = n;
}

#else /* another machine */

static int uz_bus_open(uz_fault serve) { (void)serve; return -EOPNOTSUPP; }
static void uz_bus_forked(void) {}
static int uz_bus_blockers(int *tids, int most) { (void)tids, (void)most; return 0; }
static int uz_bus_is_blocked(void) { return 0; }
static void uz_bus_look(int faulted) { (void)faulted; }

#endif

/* Wait, but not for so long that signals that are blocked meanwhile seem to be lost.  Whether it was in vain. */
static int uz_wait_briefly(pthread_cond_t *changed, pthread_mutex_t *lock) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 50000000L;
    if (t.tv_nsec >= 1000000000L) { t.tv_sec++; t.tv_nsec -= 1000000000L; }
    return pthread_cond_timedwait(changed, lock, &t) != 0;
}

/* A lock that somebody may have taken along who was killed: 0 when `never` says so. */
static int uz_lock_unless(pthread_mutex_t *lock, const int *never) {
    while (pthread_mutex_trylock(lock)) {
        struct timespec t;
        if (__atomic_load_n(never, __ATOMIC_SEQ_CST)) return 0;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec++;
        if (pthread_mutex_timedlock(lock, &t) == 0) return 1;
    }
    return 1;
}

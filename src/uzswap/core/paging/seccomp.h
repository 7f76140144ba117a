/* Trapping system calls: the filter, the handler of SIGSYS, and the one instruction whose calls pass.

   Its state is the process's, so trap.py alone may include it: each module that did would have its own.
   x86-64 alone is supported; elsewhere uz_trap() is -ENOSYS. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include "calls.h"

/* Where arrays are whose system calls are trapped.  A filter outlives exec, so no program may have memory there that
   knows nothing of us: above the 46 bits in which V8 places its heaps by chance (and mimalloc and Go theirs), below
   AddressSanitizer's heap (0x5000_0000_0000), programs (0x5555_5555_4000) and what mmap() gives by itself, downwards
   from the stack.  Each process takes a part by chance, so that one inside another has another. */
#define UZ_LOWEST 0x410000000000ull
#define UZ_HIGHEST 0x500000000000ull
#define UZ_SLOT (4ull << 40)
#define UZ_GRANULE (1ull << 32) /* the filter compares upper halves of addresses */

enum { UZ_MOST_ARENAS = 256 };
struct uz_arena { uint64_t first, end; void *pager; };

static struct uz_arena uz_arenas[UZ_MOST_ARENAS]; /* end is set last, and 0 in those that are free */
static pthread_mutex_t uz_arenas_lock = PTHREAD_MUTEX_INITIALIZER; /* of those who change them */
static uint64_t uz_slot;                          /* 0 until calls are trapped */

#ifdef __x86_64__

static uz_serve uz_server;
static struct sigaction uz_previous;
static volatile sig_atomic_t uz_probing, uz_probed;

/* uz_raw(nr, a, b, c, d, e, f): the result as the kernel gives it. */
__asm__(".pushsection .text\n"
        ".hidden uz_raw\n.globl uz_raw\n.type uz_raw, @function\n"
        "uz_raw:\n"
        ".cfi_startproc\n"
        "  movq %rdi, %rax\n  movq %rsi, %rdi\n  movq %rdx, %rsi\n  movq %rcx, %rdx\n"
        "  movq %r8, %r10\n  movq %r9, %r8\n  movq 8(%rsp), %r9\n"
        "  syscall\n"
        ".hidden uz_raw_after\n.globl uz_raw_after\n"
        "uz_raw_after:\n"
        "  ret\n"
        ".cfi_endproc\n"
        ".size uz_raw, . - uz_raw\n"
        ".popsection\n");
extern long uz_raw(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);
extern const char uz_raw_after[];

#define UZ_HIGH(x) ((uint32_t)((uint64_t)(x) >> 32))
#define UZ_LOW(x) ((uint32_t)(uint64_t)(x))
#define UZ_AT(x) ((uint64_t)(uintptr_t)(x))

/* As the kernel has it, not libc. */
struct uz_action { void *handler; unsigned long flags; void *restorer; uint64_t mask; };

/* Held back while a call is served.  Not SIGSYS and SIGBUS: where these are blocked, a trap, or a fault that is served
   by its own thread, is the end of the process. */
static const uint64_t uz_signals = ~(1ull << (SIGSYS - 1) | 1ull << (SIGBUS - 1));

/* What siginfo's si_errno says of our traps, and not of other filters'. */
#define UZ_TRAP_DATA 0x757au

static void uz_chain(int number, siginfo_t *info, void *context) {
    if (uz_previous.sa_flags & SA_SIGINFO) {
        uz_previous.sa_sigaction(number, info, context);
    } else if (uz_previous.sa_handler != SIG_DFL && uz_previous.sa_handler != SIG_IGN) {
        uz_previous.sa_handler(number);
    } else {
        /* The end of the process, as without us.  By uz_raw(), since the filter refuses sigaction(). */
        struct uz_action by_default = { 0 };
        uz_raw(SYS_rt_sigaction, SIGSYS, UZ_AT(&by_default), 0, 8, 0, 0);
        uz_raw(SYS_tgkill, getpid(), uz_raw(SYS_gettid, 0, 0, 0, 0, 0, 0), SIGSYS, 0, 0, 0);
    }
}

static void uz_on_sigsys(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    greg_t *g = c->uc_mcontext.gregs;
    int saved = errno;
    if (info->si_code != 1 /* SYS_SECCOMP */ || (uint16_t)info->si_errno != UZ_TRAP_DATA) {
        uz_chain(number, info, context);
    } else if (uz_probing) {
        uz_probed = 1;
        g[REG_RAX] = -EBADF;
    } else if (info->si_call_addr == uz_raw_after) {
        g[REG_RAX] = -EFAULT; /* trapped by the filter of a program that started this one: nothing of ours is there */
    } else {
        struct uz_call call = { .nr = info->si_syscall,
                                .args = { g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8], g[REG_R9] } };
        memcpy(&call.mask, &c->uc_sigmask, sizeof call.mask);
        g[REG_RAX] = uz_server(&call);
    }
    errno = saved;
}

/* Whether a call would have ended for a signal that came while its pages did: it may wait, and the signal has a handler
   without SA_RESTART. */
static int uz_interrupted(const struct uz_call *call) {
    struct uz_action action;
    struct stat s;
    uint64_t came = 0;
    if (uz_raw(SYS_rt_sigpending, UZ_AT(&came), 8, 0, 0, 0, 0)) return 0;
    for (came &= ~call->mask; came; came &= came - 1) {
        int number = __builtin_ctzll(came) + 1;
        if (uz_raw(SYS_rt_sigaction, number, 0, UZ_AT(&action), 8, 0, 0)) continue;
        if (action.handler == SIG_DFL || action.handler == SIG_IGN || action.flags & SA_RESTART) continue;
        return call->nr != SYS_getrandom && fstat((int)call->args[0], &s) == 0 && !S_ISREG(s.st_mode) &&
               !S_ISBLK(s.st_mode);
    }
    return 0;
}

/* Make the call itself, with the caller's signals let through.  `waited`: its pages may have been long in coming. */
static long uz_make(const struct uz_call *call, int waited) {
    const uint64_t *a = call->args;
    if (waited && uz_interrupted(call)) return -EINTR;
    uz_raw(SYS_rt_sigprocmask, SIG_SETMASK, UZ_AT(&call->mask), 0, 8, 0, 0);
    long result = uz_raw(call->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    uz_raw(SYS_rt_sigprocmask, SIG_SETMASK, UZ_AT(&uz_signals), 0, 8, 0, 0);
    return result;
}

/* The filter.  Jumps hold labels until all is laid out; all of them go forward. */

enum { UZ_NEXT, UZ_ARGUMENT_0, UZ_ARGUMENT_1, UZ_ARGUMENT_2, UZ_ACTION, UZ_MADE_AT, UZ_TRAP, UZ_ALLOW, UZ_LABELS };
struct uz_program { struct sock_filter steps[64]; unsigned n, labels[UZ_LABELS]; };

static void uz_label(struct uz_program *p, int label) { p->labels[label] = p->n; }

static void uz_load(struct uz_program *p, size_t offset) {
    p->steps[p->n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
}

static void uz_test(struct uz_program *p, int how, uint32_t value, int yes, int no) {
    p->steps[p->n++] = (struct sock_filter){ BPF_JMP | how | BPF_K, (uint8_t)yes, (uint8_t)no, value };
}

static void uz_return(struct uz_program *p, uint32_t what) {
    p->steps[p->n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what);
}

static void uz_link(struct uz_program *p) {
    for (unsigned i = 0; i < p->n; i++) {
        struct sock_filter *s = &p->steps[i];
        if (BPF_CLASS(s->code) != BPF_JMP) continue;
        s->jt = s->jt == UZ_NEXT ? 0 : p->labels[s->jt] - i - 1;
        s->jf = s->jf == UZ_NEXT ? 0 : p->labels[s->jf] - i - 1;
    }
}

/* The code of the library that an address is in: as far as it has the same upper half. */
static int uz_find_code(struct dl_phdr_info *info, size_t size, void *found) {
    uint64_t *range = found, at = range[0];
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uint64_t first = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, last = first + info->dlpi_phdr[i].p_memsz - 1;
        if (info->dlpi_phdr[i].p_type != PT_LOAD || at < first || at > last) continue;
        range[1] = UZ_HIGH(first) == UZ_HIGH(at) ? first : at & ~0xffffffffull;
        range[2] = UZ_HIGH(last) == UZ_HIGH(at) ? last : at | 0xffffffffull;
        return 1;
    }
    return 0;
}

#define UZ_FIELD(name) offsetof(struct seccomp_data, name)

/* A signal cannot be caught by others any more, as SIGKILL never can.  Filters outlive exec, so this is for the libc of
   this program alone: another has its own somewhere else.  Ends with all else allowed. */
static void uz_refuse_action(struct uz_program *p, int number, const uint64_t *libc) {
    uz_load(p, UZ_FIELD(args[0]));
    uz_test(p, BPF_JEQ, (uint32_t)number, UZ_NEXT, UZ_ALLOW);
    uz_load(p, UZ_FIELD(args[1]) + 4); /* a query has no new action; in a program like ours no address is below 4 GiB */
    uz_test(p, BPF_JEQ, 0, UZ_ALLOW, UZ_NEXT);
    uz_load(p, UZ_FIELD(instruction_pointer) + 4);
    uz_test(p, BPF_JEQ, UZ_HIGH(libc[1]), UZ_NEXT, UZ_ALLOW);
    uz_load(p, UZ_FIELD(instruction_pointer));
    uz_test(p, BPF_JGE, UZ_LOW(libc[1]), UZ_NEXT, UZ_ALLOW);
    uz_test(p, BPF_JGT, UZ_LOW(libc[2]), UZ_ALLOW, UZ_NEXT);
    uz_return(p, SECCOMP_RET_ERRNO | EINVAL);
    uz_label(p, UZ_ALLOW);
    uz_return(p, SECCOMP_RET_ALLOW);
    uz_link(p);
}

static int uz_install(struct uz_program *p) {
    struct sock_fprog program = { (unsigned short)p->n, p->steps };
    long failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (failed < 0 && errno == EACCES && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    /* A positive result is a thread with a filter of its own. */
    return failed < 0 ? -errno : failed ? -EBUSY : 0;
}

/* Traps the calls that take a buffer when it is in first .. end - 1, wherever they are made but in uz_raw(). */
static int uz_filter(uint64_t first, uint64_t end) {
    static const struct { uint16_t nr, label; } calls[] = {
        { SYS_read, UZ_ARGUMENT_1 },     { SYS_write, UZ_ARGUMENT_1 },   { SYS_recvfrom, UZ_ARGUMENT_1 },
        { SYS_sendto, UZ_ARGUMENT_1 },   { SYS_pread64, UZ_ARGUMENT_1 }, { SYS_pwrite64, UZ_ARGUMENT_1 },
        { SYS_ioctl, UZ_ARGUMENT_2 },    { SYS_getrandom, UZ_ARGUMENT_0 },
    };
    struct uz_program p = { .n = 0 };
    uint64_t libc[3] = { UZ_AT(dlsym(RTLD_DEFAULT, "gnu_get_libc_version")) };
    if (!libc[0] || !dl_iterate_phdr(uz_find_code, libc)) return -ENOSYS;
    uz_load(&p, UZ_FIELD(arch));
    uz_test(&p, BPF_JEQ, AUDIT_ARCH_X86_64, UZ_NEXT, UZ_ALLOW);
    uz_load(&p, UZ_FIELD(nr));
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
        uz_test(&p, BPF_JEQ, calls[i].nr, calls[i].label, UZ_NEXT);
    uz_test(&p, BPF_JEQ, SYS_rt_sigaction, UZ_ACTION, UZ_ALLOW);
    for (int i = 0; i < 3; i++) {
        uz_label(&p, UZ_ARGUMENT_0 + i);
        uz_load(&p, UZ_FIELD(args) + 8 * i + 4);
        uz_test(&p, BPF_JGE, UZ_HIGH(first), UZ_NEXT, UZ_ALLOW);
        uz_test(&p, BPF_JGE, UZ_HIGH(end), UZ_ALLOW, UZ_MADE_AT);
    }
    uz_label(&p, UZ_MADE_AT);
    uz_load(&p, UZ_FIELD(instruction_pointer));
    uz_test(&p, BPF_JEQ, UZ_LOW(UZ_AT(uz_raw_after)), UZ_NEXT, UZ_TRAP);
    uz_load(&p, UZ_FIELD(instruction_pointer) + 4);
    uz_test(&p, BPF_JEQ, UZ_HIGH(UZ_AT(uz_raw_after)), UZ_ALLOW, UZ_TRAP);
    uz_label(&p, UZ_TRAP);
    uz_return(&p, SECCOMP_RET_TRAP | UZ_TRAP_DATA);
    /* Without our handler a trapped read() would seem to have read 0 bytes. */
    uz_label(&p, UZ_ACTION);
    uz_refuse_action(&p, SIGSYS, libc);
    return uz_install(&p);
}

/* Have libc's sigaction() of a signal fail with EINVAL from now on.  0 or -errno. */
static int uz_refuse_handlers(int number) {
    struct uz_program p = { .n = 0 };
    uint64_t libc[3] = { UZ_AT(dlsym(RTLD_DEFAULT, "gnu_get_libc_version")) };
    static uint64_t refused;
    if (!libc[0] || !dl_iterate_phdr(uz_find_code, libc)) return -ENOSYS;
    if (__atomic_load_n(&refused, __ATOMIC_SEQ_CST) & 1ull << number) return 0;
    uz_load(&p, UZ_FIELD(arch));
    uz_test(&p, BPF_JEQ, AUDIT_ARCH_X86_64, UZ_NEXT, UZ_ALLOW);
    uz_load(&p, UZ_FIELD(nr));
    uz_test(&p, BPF_JEQ, SYS_rt_sigaction, UZ_NEXT, UZ_ALLOW);
    uz_refuse_action(&p, number, libc);
    int failed = uz_install(&p);
    if (!failed) __atomic_or_fetch(&refused, 1ull << number, __ATOMIC_SEQ_CST);
    return failed;
}

/* Whether a filter that this program was started with traps an address. */
static int uz_trapped_already(uint64_t at) {
    char *page = mmap((void *)(uintptr_t)at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page != (char *)(uintptr_t)at) {
        if (page != MAP_FAILED) munmap(page, 4096);
        return 1; /* somebody's memory, which is as bad */
    }
    uz_probed = 0;
    uz_probing = 1;
    syscall(SYS_write, -1, page, 0);
    uz_probing = 0;
    munmap(page, 4096);
    return uz_probed;
}

/* Trap the system calls on a part of the address space from now on, in every thread; `serve` makes them.  Once a
   process: further calls, also in a child after fork(), change nothing.  0 or -errno. */
static int uz_trap_locked(uz_serve serve) {
    struct sigaction action = { .sa_sigaction = uz_on_sigsys, .sa_flags = SA_SIGINFO | SA_NODEFER }, now;
    uint64_t slots = (UZ_HIGHEST - UZ_SLOT - UZ_LOWEST) / UZ_GRANULE, chance = 0, first = 0;
    sigset_t sigsys, old;
    if (uz_slot) return 0;
    memcpy(&action.sa_mask, &uz_signals, sizeof uz_signals); /* libc's own as well, which sigfillset() leaves out */
    sigemptyset(&sigsys);
    sigaddset(&sigsys, SIGSYS);
    uz_server = serve;
    if (sigaction(SIGSYS, &action, &now)) return -errno;
    if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != uz_on_sigsys) uz_previous = now;
    pthread_sigmask(SIG_UNBLOCK, &sigsys, &old); /* for good: it is inherited over exec */
    for (int tries = 0; tries < 64 && !first; tries++) {
        if (getrandom(&chance, sizeof chance, 0) != sizeof chance) chance += UZ_AT(&action) >> 12;
        first = UZ_LOWEST + chance % slots * UZ_GRANULE;
        if (uz_trapped_already(first) || uz_trapped_already(first + UZ_SLOT - 4096)) first = 0;
    }
    int failed = first ? uz_filter(first, first + UZ_SLOT) : -ENOMEM;
    if (failed) {
        sigaction(SIGSYS, &uz_previous, NULL);
        return failed;
    }
    uz_slot = first;
    struct uz_calls *wrappers = dlsym(RTLD_DEFAULT, "uzswap_calls_1");
    if (wrappers) {
        wrappers->serve = serve;
        wrappers->first = first;
        __atomic_store_n(&wrappers->bytes, UZ_SLOT, __ATOMIC_RELEASE);
    }
    return 0;
}

#else /* another machine */

static long uz_make(const struct uz_call *call, int waited) { (void)call, (void)waited; return -ENOSYS; }
static long uz_raw(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    (void)nr, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    return -ENOSYS;
}
static int uz_trap_locked(uz_serve serve) { (void)serve; return -ENOSYS; }
static int uz_refuse_handlers(int number) { (void)number; return -ENOSYS; }

#endif

static int uz_trap(uz_serve serve) {
    pthread_mutex_lock(&uz_arenas_lock);
    int failed = uz_trap_locked(serve);
    pthread_mutex_unlock(&uz_arenas_lock);
    return failed;
}

/* In a child: nobody else is there to let go of the lock. */
static void uz_arenas_forked(void) { pthread_mutex_init(&uz_arenas_lock, NULL); }

/* Address space for an arena where calls are trapped; NULL when there is none. */
static void *uz_arena_open(uint64_t nbytes, void *pager) {
    void *found = NULL;
    pthread_mutex_lock(&uz_arenas_lock);
    int place = 0;
    while (place < UZ_MOST_ARENAS && uz_arenas[place].end) place++;
    uint64_t at = uz_slot;
    while (place < UZ_MOST_ARENAS && uz_slot && !found && at + nbytes <= uz_slot + UZ_SLOT) {
        /* Behind the last one that is in the way: there are few. */
        uint64_t next = 0;
        for (int i = 0; i < UZ_MOST_ARENAS; i++)
            if (uz_arenas[i].end && uz_arenas[i].first < at + nbytes && at < uz_arenas[i].end) next = uz_arenas[i].end;
        if (!next) {
            int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
            void *got = mmap((void *)(uintptr_t)at, nbytes, PROT_READ | PROT_WRITE, flags, -1, 0);
            if (got == (void *)(uintptr_t)at) found = got;
            else if (got != MAP_FAILED) munmap(got, nbytes);
            next = at + UZ_GRANULE;
        }
        at = next;
    }
    if (found) {
        uz_arenas[place].first = (uint64_t)(uintptr_t)found;
        uz_arenas[place].pager = pager;
        __atomic_store_n(&uz_arenas[place].end, (uint64_t)(uintptr_t)found + nbytes, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&uz_arenas_lock);
    return found;
}

static void uz_arena_close(void *pager) {
    pthread_mutex_lock(&uz_arenas_lock);
    for (int i = 0; i < UZ_MOST_ARENAS; i++)
        if (uz_arenas[i].pager == pager) {
            __atomic_store_n(&uz_arenas[i].end, 0, __ATOMIC_RELEASE);
            uz_arenas[i].pager = NULL;
        }
    pthread_mutex_unlock(&uz_arenas_lock);
}

/* The pager that an address belongs to, or NULL.  Without a lock: an arena with arrays stays. */
static void *uz_arena_at(uint64_t address) {
    for (int i = 0; i < UZ_MOST_ARENAS; i++)
        if (address < __atomic_load_n(&uz_arenas[i].end, __ATOMIC_ACQUIRE) && address >= uz_arenas[i].first)
            return uz_arenas[i].pager;
    return NULL;
}

/* How a transfer that is too large may be cut: how much of it is to be there at once. */
enum { UZ_WHOLE, UZ_ONE_PART, UZ_ALL_PARTS };

static int uz_may_cut(int fd, int inward, int flags, int control) {
    struct stat s;
    int type = 0;
    socklen_t size = sizeof type;
    if (control || flags & MSG_ZEROCOPY) return UZ_WHOLE; /* there is one answer to each call */
    if (fstat(fd, &s)) return UZ_WHOLE;
    if (S_ISSOCK(s.st_mode)) {
        /* A datagram is one transfer.  Of a stream what came first is given out at once: the rest may be long in
           coming, unless it was asked to be waited for. */
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_STREAM) return UZ_WHOLE;
        return inward && (!(flags & MSG_WAITALL) || flags & MSG_PEEK) ? UZ_ONE_PART : UZ_ALL_PARTS;
    }
    if (S_ISREG(s.st_mode) || S_ISBLK(s.st_mode)) {
        /* What is appended by one call stands together. */
        return !inward && fcntl(fd, F_GETFL) & O_APPEND ? UZ_WHOLE : UZ_ALL_PARTS;
    }
    return inward ? UZ_ONE_PART : UZ_ALL_PARTS;
}

static void uz_touch(const char *at) { (void)*(const volatile char *)at; }

/* Whether a descriptor is a userfaultfd in this thread's table: the program may have closed it. */
static int uz_is_userfaultfd(int fd) {
    static const char expected[] = "anon_inode:[userfaultfd]";
    char path[32] = "/proc/self/fd/", found[sizeof expected], digits[12];
    int n = 0, at = (int)strlen(path);
    do digits[n++] = '0' + fd % 10;
    while (fd /= 10);
    while (n) path[at++] = digits[--n];
    path[at] = 0;
    return readlink(path, found, sizeof found) == sizeof expected - 1 && !memcmp(found, expected, sizeof expected - 1);
}

/* mincore(2) in at most `most` pages; present[i] & 1 says that a page is there. */
static int uz_which_are_there(uint64_t at, uint64_t pages, unsigned char *present) {
    return uz_raw(SYS_mincore, at, pages * 4096, (uint64_t)(uintptr_t)present, 0, 0, 0);
}

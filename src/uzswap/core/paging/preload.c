/* Wrappers of the calls that transfer data, for `uzswap run` to preload where the kernel does not wait for pages; and of
   those that change what becomes of SIGBUS, where faults are served by its handler.

   The filter of seccomp.h traps what has its buffer in a register.  It cannot see where vectors and messages point to,
   so these are looked at here; the others come along since this is ten times as fast as a trap, and works where SIGSYS
   is blocked.  What glibc calls within itself does not pass here, and is trapped.

   It does nothing until uzswap fills in uzswap_calls_1, and uzswap_handlers_1. */

#ifdef __LP64__

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "calls.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT struct uz_calls uzswap_calls_1;
EXPORT struct uz_handlers uzswap_handlers_1;

static int ours(const void *buffer) {
    uint64_t bytes = __atomic_load_n(&uzswap_calls_1.bytes, __ATOMIC_ACQUIRE);
    return (uint64_t)(uintptr_t)buffer - uzswap_calls_1.first < bytes;
}

static int any_ours(const struct iovec *vector, size_t n) {
    if (!__atomic_load_n(&uzswap_calls_1.bytes, __ATOMIC_RELAXED)) return 0;
    for (size_t i = 0; i < n && i < 1024 /* IOV_MAX */; i++)
        if (ours(vector[i].iov_base)) return 1;
    return 0;
}

static int any_message_ours(const struct mmsghdr *messages, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        if (any_ours(messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen)) return 1;
    return 0;
}

static ssize_t served(long nr, long a, const void *b, long c, long d, long e, long f) {
    struct uz_call call = { .nr = nr, .args = { a, (uint64_t)(uintptr_t)b, c, d, e, f } };
    uint64_t all = ~(1ull << (SIGSYS - 1) | 1ull << (SIGBUS - 1));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &call.mask, 8);
    long result = uzswap_calls_1.serve(&call);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &call.mask, NULL, 8);
    if (result >= 0) return result;
    errno = (int)-result;
    return -1;
}

/* Libc's own, which are points of cancellation, for all that is not ours. */
#define NEXT(name)                                              \
    static __typeof__(name) *next;                              \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

EXPORT ssize_t read(int fd, void *buffer, size_t n) {
    NEXT(read);
    return ours(buffer) ? served(SYS_read, fd, buffer, n, 0, 0, 0) : next(fd, buffer, n);
}

EXPORT ssize_t write(int fd, const void *buffer, size_t n) {
    NEXT(write);
    return ours(buffer) ? served(SYS_write, fd, buffer, n, 0, 0, 0) : next(fd, buffer, n);
}

EXPORT ssize_t recv(int fd, void *buffer, size_t n, int flags) {
    NEXT(recv);
    return ours(buffer) ? served(SYS_recvfrom, fd, buffer, n, flags, 0, 0) : next(fd, buffer, n, flags);
}

EXPORT ssize_t send(int fd, const void *buffer, size_t n, int flags) {
    NEXT(send);
    return ours(buffer) ? served(SYS_sendto, fd, buffer, n, flags, 0, 0) : next(fd, buffer, n, flags);
}

EXPORT ssize_t pread64(int fd, void *buffer, size_t n, off64_t offset) {
    NEXT(pread64);
    return ours(buffer) ? served(SYS_pread64, fd, buffer, n, offset, 0, 0) : next(fd, buffer, n, offset);
}

EXPORT ssize_t pwrite64(int fd, const void *buffer, size_t n, off64_t offset) {
    NEXT(pwrite64);
    return ours(buffer) ? served(SYS_pwrite64, fd, buffer, n, offset, 0, 0) : next(fd, buffer, n, offset);
}

EXPORT ssize_t readv(int fd, const struct iovec *vector, int n) {
    NEXT(readv);
    return any_ours(vector, n) ? served(SYS_readv, fd, vector, n, 0, 0, 0) : next(fd, vector, n);
}

EXPORT ssize_t writev(int fd, const struct iovec *vector, int n) {
    NEXT(writev);
    return any_ours(vector, n) ? served(SYS_writev, fd, vector, n, 0, 0, 0) : next(fd, vector, n);
}

EXPORT ssize_t preadv64(int fd, const struct iovec *vector, int n, off64_t offset) {
    NEXT(preadv64);
    return any_ours(vector, n) ? served(SYS_preadv, fd, vector, n, offset, 0, 0) : next(fd, vector, n, offset);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *vector, int n, off64_t offset) {
    NEXT(pwritev64);
    return any_ours(vector, n) ? served(SYS_pwritev, fd, vector, n, offset, 0, 0) : next(fd, vector, n, offset);
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *vector, int n, off64_t offset, int flags) {
    NEXT(preadv64v2);
    return any_ours(vector, n) ? served(SYS_preadv2, fd, vector, n, offset, 0, flags)
                               : next(fd, vector, n, offset, flags);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *vector, int n, off64_t offset, int flags) {
    NEXT(pwritev64v2);
    return any_ours(vector, n) ? served(SYS_pwritev2, fd, vector, n, offset, 0, flags)
                               : next(fd, vector, n, offset, flags);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    NEXT(recvmsg);
    return any_ours(message->msg_iov, message->msg_iovlen) ? served(SYS_recvmsg, fd, message, flags, 0, 0, 0)
                                                           : next(fd, message, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    NEXT(sendmsg);
    return any_ours(message->msg_iov, message->msg_iovlen) ? served(SYS_sendmsg, fd, message, flags, 0, 0, 0)
                                                           : next(fd, message, flags);
}

EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout) {
    NEXT(recvmmsg);
    return any_message_ours(messages, n)
               ? (int)served(SYS_recvmmsg, fd, messages, n, flags, (long)(intptr_t)timeout, 0)
               : next(fd, messages, n, flags, timeout);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags) {
    NEXT(sendmmsg);
    return any_message_ours(messages, n) ? (int)served(SYS_sendmmsg, fd, messages, n, flags, 0, 0)
                                         : next(fd, messages, n, flags);
}

/* An off_t has 64 bits, with either name. */
#define SAME(name, as) EXPORT __typeof__(as) name __attribute__((alias(#as)))
SAME(pread, pread64);
SAME(pwrite, pwrite64);
SAME(preadv, preadv64);
SAME(pwritev, pwritev64);
SAME(preadv2, preadv64v2);
SAME(pwritev2, pwritev64v2);

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t n, int flags, __SOCKADDR_ARG from, socklen_t *length) {
    NEXT(recvfrom);
    return ours(buffer) ? served(SYS_recvfrom, fd, buffer, n, flags, (long)(intptr_t)from.__sockaddr__, (long)(intptr_t)length)
                        : next(fd, buffer, n, flags, from, length);
}

EXPORT ssize_t sendto(int fd, const void *buffer, size_t n, int flags, __CONST_SOCKADDR_ARG to, socklen_t length) {
    NEXT(sendto);
    return ours(buffer) ? served(SYS_sendto, fd, buffer, n, flags, (long)(intptr_t)to.__sockaddr__, length)
                        : next(fd, buffer, n, flags, to, length);
}

/* Handlers of SIGBUS come behind ours (sigbus.h). */
EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    NEXT(sigaction);
    __typeof__(uzswap_handlers_1.action) ours = __atomic_load_n(&uzswap_handlers_1.action, __ATOMIC_ACQUIRE);
    return number == SIGBUS && ours ? ours(action, before) : next(number, action, before);
}

EXPORT sighandler_t signal(int number, sighandler_t handler) {
    NEXT(signal);
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART }, before;
    if (number != SIGBUS || !__atomic_load_n(&uzswap_handlers_1.action, __ATOMIC_ACQUIRE)) return next(number, handler);
    return sigaction(number, &action, &before) ? SIG_ERR : before.sa_handler;
}

/* SIGBUS cannot be blocked then: no error, as for SIGKILL. */
static const sigset_t *may_block(int how, const sigset_t *set, sigset_t *less) {
    if (!set || how == SIG_UNBLOCK || !__atomic_load_n(&uzswap_handlers_1.action, __ATOMIC_ACQUIRE)) return set;
    *less = *set;
    sigdelset(less, SIGBUS);
    return less;
}

EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *before) {
    NEXT(pthread_sigmask);
    sigset_t less;
    return next(how, may_block(how, set, &less), before);
}

EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *before) {
    NEXT(sigprocmask);
    sigset_t less;
    return next(how, may_block(how, set, &less), before);
}

/* The program's own children shall not have it: once Python runs, its environment is as it was. */
__attribute__((constructor)) static void forget(void) {
    const char *value = getenv("LD_PRELOAD");
    Dl_info self;
    if (!value || !dlsym(RTLD_DEFAULT, "Py_BytesMain") || !dladdr(&uzswap_calls_1, &self)) return;
    size_t length = strlen(self.dli_fname);
    if (strncmp(value, self.dli_fname, length)) return; /* it is put first */
    if (value[length] == ':' && value[length + 1]) {
        char *rest = strdup(value + length + 1);
        if (rest) setenv("LD_PRELOAD", rest, 1);
    } else {
        unsetenv("LD_PRELOAD");
    }
}

#endif

/* Preloaded, it watches the locks of the data plane: which is taken under which.  See lock_order.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_HELD = 16, MOST_ORDERS = 4096, MOST_CALLERS = 4096 };
enum { OTHERS, OURS, PYTHONS };

static int (*real_lock)(pthread_mutex_t *);
static int (*real_unlock)(pthread_mutex_t *);
static int (*real_destroy)(pthread_mutex_t *);
static int (*real_rdlock)(pthread_rwlock_t *);
static int (*real_wrlock)(pthread_rwlock_t *);
static int (*real_tryrdlock)(pthread_rwlock_t *);
static int (*real_trywrlock)(pthread_rwlock_t *);
static int (*real_rwunlock)(pthread_rwlock_t *);
static int (*real_rwdestroy)(pthread_rwlock_t *);
static __thread void *held[MOST_HELD];
static __thread int nr_held;
static __thread int inside;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct { void *first, *then; } orders[MOST_ORDERS];
static int nr_orders;
static struct { void *address; int whose; } callers[MOST_CALLERS];

__attribute__((constructor)) static void begin(void) {
    real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    real_unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    real_destroy = dlsym(RTLD_NEXT, "pthread_mutex_destroy");
    real_rdlock = dlsym(RTLD_NEXT, "pthread_rwlock_rdlock");
    real_wrlock = dlsym(RTLD_NEXT, "pthread_rwlock_wrlock");
    real_tryrdlock = dlsym(RTLD_NEXT, "pthread_rwlock_tryrdlock");
    real_trywrlock = dlsym(RTLD_NEXT, "pthread_rwlock_trywrlock");
    real_rwunlock = dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
    real_rwdestroy = dlsym(RTLD_NEXT, "pthread_rwlock_destroy");
}

static void tell(const char *what) {
    void *frames[32];
    inside = 1;
    fprintf(stderr, "lock_order: %s\n", what);
    backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
    _exit(70);
}

static int whose(void *address) {
    unsigned slot = ((unsigned long)address >> 2) % MOST_CALLERS;
    if (callers[slot].address == address) return callers[slot].whose;
    Dl_info info;
    int who = OTHERS;
    inside = 1;
    if (dladdr(address, &info) && info.dli_fname) {
        if (strstr(info.dli_fname, "uzswap/core/")) who = OURS;
        else if (strstr(info.dli_fname, "python")) who = PYTHONS;
    }
    inside = 0;
    callers[slot].whose = who;
    callers[slot].address = address;
    return who;
}

/* Whether a chain of orders leads from one lock to another.  Called with the guard. */
static int leads(const void *from, const void *to, int depth) {
    if (depth == MOST_HELD) return 0;
    for (int i = 0; i < nr_orders; i++)
        if (orders[i].first == from && (orders[i].then == to || leads(orders[i].then, to, depth + 1))) return 1;
    return 0;
}

static void note(void *lock) {
    real_lock(&guard);
    for (int k = 0; k < nr_held; k++) {
        int known = 0;
        if (held[k] == lock) tell("a thread takes a lock that it has");
        for (int i = 0; i < nr_orders && !known; i++) known = orders[i].first == held[k] && orders[i].then == lock;
        if (known) continue;
        if (leads(lock, held[k], 0)) tell("two locks are taken in both orders");
        if (nr_orders == MOST_ORDERS) tell("too many locks");
        orders[nr_orders].first = held[k];
        orders[nr_orders++].then = lock;
    }
    real_unlock(&guard);
}

static void taken(void *lock) {
    if (nr_held < MOST_HELD) held[nr_held++] = lock;
}

static void given(const void *lock) {
    for (int k = nr_held - 1; k >= 0; k--)
        if (held[k] == lock) {
            memmove(held + k, held + k + 1, (--nr_held - k) * sizeof *held);
            break;
        }
}

static void forgotten(const void *lock) {
    real_lock(&guard);
    for (int i = 0; i < nr_orders; i++)
        while (i < nr_orders && (orders[i].first == lock || orders[i].then == lock)) orders[i] = orders[--nr_orders];
    real_unlock(&guard);
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (!real_lock) begin();
    if (!inside) {
        int who = whose(__builtin_return_address(0));
        if (who == PYTHONS && nr_held) tell("the GIL is taken under a lock of the data plane");
        if (who == OURS) {
            note(mutex);
            int failed = real_lock(mutex);
            taken(mutex);
            return failed;
        }
    }
    return real_lock(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    if (!real_unlock) begin();
    given(mutex);
    return real_unlock(mutex);
}

int pthread_mutex_destroy(pthread_mutex_t *mutex) {
    if (!real_destroy) begin();
    forgotten(mutex);
    return real_destroy(mutex);
}

static int take_rwlock(pthread_rwlock_t *lock, int (*take)(pthread_rwlock_t *), void *caller) {
    int ours = !inside && whose(caller) == OURS;
    if (ours) note(lock);
    int failed = take(lock);
    if (ours && !failed) taken(lock);
    return failed;
}

int pthread_rwlock_rdlock(pthread_rwlock_t *lock) {
    if (!real_rdlock) begin();
    return take_rwlock(lock, real_rdlock, __builtin_return_address(0));
}

int pthread_rwlock_wrlock(pthread_rwlock_t *lock) {
    if (!real_wrlock) begin();
    return take_rwlock(lock, real_wrlock, __builtin_return_address(0));
}

/* Who tries waits next: see uz_brief_lock(). */
int pthread_rwlock_tryrdlock(pthread_rwlock_t *lock) {
    if (!real_tryrdlock) begin();
    return take_rwlock(lock, real_tryrdlock, __builtin_return_address(0));
}

int pthread_rwlock_trywrlock(pthread_rwlock_t *lock) {
    if (!real_trywrlock) begin();
    return take_rwlock(lock, real_trywrlock, __builtin_return_address(0));
}

int pthread_rwlock_unlock(pthread_rwlock_t *lock) {
    if (!real_rwunlock) begin();
    given(lock);
    return real_rwunlock(lock);
}

int pthread_rwlock_destroy(pthread_rwlock_t *lock) {
    if (!real_rwdestroy) begin();
    forgotten(lock);
    return real_rwdestroy(lock);
}

/* A system call that is to be made on memory of ours: what the trap, the preloaded wrappers and syscalls.py share. */
#ifndef UZSWAP_CALLS_H
#define UZSWAP_CALLS_H

#include <stdint.h>

struct uz_call {
    long nr;
    uint64_t args[6];
    uint64_t mask; /* of the caller's signals; all are blocked while it is served, but when the call itself is made */
};

/* The result as the kernel gives it: a count, or -errno. */
typedef long (*uz_serve)(struct uz_call *call);

/* What preload.c exports as uzswap_calls_1, and trap.h fills in: the number goes up with every change of the layout. */
struct uz_calls {
    uint64_t first, bytes; /* addresses that arrays may have; none while bytes is 0 */
    uz_serve serve;
};

/* Has the page at an address brought in; 0 when that is not ours to do.  poisoned: the kernel says that it is broken. */
typedef int (*uz_fault)(uint64_t address, int to_write, int poisoned);

/* Likewise, uzswap_handlers_1. */
struct sigaction;
struct uz_handlers {
    int (*action)(const struct sigaction *, struct sigaction *); /* sigaction() of SIGBUS; NULL while that is libc's */
};

#endif

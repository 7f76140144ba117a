"""System calls on paged memory, caught before the kernel makes them: the process's side of it.

In user mode only the kernel does not wait for a page that is not there: the call fails with EFAULT, or has read less
than it could have.  So the first arena of a process in that mode installs a seccomp filter that traps every call whose
buffer lies where such arenas are (SECCOMP_RET_TRAP: a SIGSYS of the thread that makes it), from wherever it is made:
also from within glibc, where no wrapper is passed (``fread``).  The handler has the call served, by syscalls.py, and
returns its result.

What it costs: a process that may do no more than its user has no_new_privs from then on, so setuid programs that it
starts stay what the user is.  SIGSYS is the filter's: other filters' traps are passed on to the handler that was there
before, and later handlers are refused with EINVAL.  A thread that blocks SIGSYS is killed, and with it the process,
when it makes a call that is trapped: that is the kernel's rule.  Filters outlive exec and fork; addresses are chosen so
that they do nothing there (seccomp.h).

The functions here are those of seccomp.h; no module but this one may have its state.
"""

from cython.cimports.uzswap.core.paging.seccomp import (
    uz_arena_at,
    uz_arena_close,
    uz_arena_open,
    uz_arenas_forked,
    uz_is_userfaultfd,
    uz_make,
    uz_may_cut,
    uz_refuse_handlers,
    uz_touch,
    uz_trap,
    uz_which_are_there,
)


def trap_open(serve):
    """Trap calls from now on, and have `serve` make them.  0 or -errno."""
    return uz_trap(serve)


def refuse_handlers(number):
    """Have libc's sigaction() of a signal fail with EINVAL from now on.  0 or -errno."""
    return uz_refuse_handlers(number)


def arena_open(nbytes, pager):
    """Address space whose calls are trapped; NULL without."""
    return uz_arena_open(nbytes, pager)


def arena_close(pager):
    uz_arena_close(pager)


def arenas_forked():
    """First of all in a forked child, which has the arenas until they are closed."""
    uz_arenas_forked()


def arena_at(address):
    """The pager that an address belongs to, or NULL."""
    return uz_arena_at(address)


def make(call, waited):
    """Make a call as the kernel would have made it: with the caller's signals let through.

    When its pages had to be waited for, a signal that came meanwhile ends it as it would have ended the kernel's wait.
    """
    return uz_make(call, waited)


def may_cut(fd, inward, flags, control):
    """How a transfer may be cut: WHOLE, ONE_PART or ALL_PARTS of syscalls.pxd."""
    return uz_may_cut(fd, inward, flags, control)


def touch(at):
    """Read a byte, as any code of the program would."""
    uz_touch(at)


def is_userfaultfd(fd):
    """Whether this thread's table of descriptors still has a userfaultfd there."""
    return uz_is_userfaultfd(fd)


def which_are_there(at, pages, present):
    """Which pages are mapped in: mincore(2).  0 or -errno."""
    return uz_which_are_there(at, pages, present)

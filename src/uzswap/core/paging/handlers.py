"""The process's handler of SIGBUS, for engines whose faults are served in the thread that they are in.

With UFFD_FEATURE_SIGBUS the kernel sends whoever touches a page that is not there SIGBUS, and nobody else hears of it.
The handler has the page brought in (signal_faults.py) and returns, and the access is made again.  All other signals are
blocked meanwhile.  What is no fault on an array goes to the handler that was there before, as it would without us:

* one that returns from a fault which it did not mend sees it again; after 1000 times the process ends, as it would with
  no handler.  So does one that sends the signal again to itself (faulthandler, which has put back what was there before
  it, as it thinks);
* one that comes later is put behind ours where the program's calls pass the wrappers of preload.c.  Elsewhere libc's
  sigaction() of SIGBUS is refused with EINVAL (trap.py), as the kernel does it for SIGKILL.  Code that passes libc by
  is found out by the keeper of an engine within a second: then ours is put back before it, and stderr has a line.

A thread that blocks SIGBUS and touches a page that is not there is killed by the kernel, and the process with it.  The
wrappers of preload.c never block it; otherwise the keeper tells of such threads, and opening an engine's memory does.

The functions here are those of sigbus.h; no module but this one may have its state.
"""

from cython.cimports.uzswap.core.paging.sigbus import (
    SIGBUS,
    uz_bus_blockers,
    uz_bus_forked,
    uz_bus_is_blocked,
    uz_bus_look,
    uz_bus_open,
    uz_lock_unless,
    uz_wait_briefly,
)
from cython.cimports.uzswap.core.paging.trap import refuse_handlers


def handler_open(serve):
    """Have faults served by `serve` from now on.  0 or -errno."""
    failed = uz_bus_open(serve)
    return failed if failed else refuse_handlers(SIGBUS)


def handlers_forked():
    """In a forked child, before anybody else there."""
    uz_bus_forked()


def blockers(tids, most):
    """The numbers of up to `most` threads that block SIGBUS, those of engines apart.  How many."""
    return uz_bus_blockers(tids, most)


def is_blocked():
    """Whether the calling thread blocks SIGBUS."""
    return uz_bus_is_blocked()


def look(faulted):
    """Find out, and say on stderr, who has taken SIGBUS away; when there were faults also who blocks it."""
    uz_bus_look(faulted)


def lock_unless(lock, never):
    """Take a lock: 1, or 0 when `never` says that who has it was killed."""
    return uz_lock_unless(lock, never)


def wait_briefly(changed, lock):
    """Wait for a change, but not for long; whether none came.

    Signals are blocked meanwhile: between two times they get through, as the kernel has it in a wait for a page.
    """
    return uz_wait_briefly(changed, lock)

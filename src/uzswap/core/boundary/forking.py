"""What happens to engines when the process forks: see inheriting.py, of pages and of entries, for each of its steps.

A fork that Python makes was announced by the hook that runs before (os.register_at_fork); what is done then is done by
pthread_atfork(3), within fork() itself.  From the first step to the last the thread that forks has the GIL, so nobody
who has it waits for a page or for the gates meanwhile, and no other code of Python's runs in between.

1. The gates of all engines are shut, and what is within them ends; faults are still served, since an engine may be
   storing what another one pages.
2. The gates of all pages are shut, and what is on its way arrives.  Nothing is half done now, and no lock is held.
3. The memory of arrays is made to be inherited, and the process forks.
4. The parent opens the gates.  The child makes everything its own, before any other code of it runs.

A fork that nobody announced (C code) leaves the child without arrays and engines, as does a vfork or a spawn, which
none of this is called for; only that two forks are never under way at the same time.
"""

import cython
from cython.cimports.libc.errno import EAGAIN
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.gate import uz_wait_empty
from cython.cimports.uzswap.core.libc_ext import (
    pthread_atfork,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)
from cython.cimports.uzswap.core.paging.handlers import handlers_forked
from cython.cimports.uzswap.core.paging.inheriting import (
    pager_away,
    pager_inherit,
    pager_keep,
    pager_lend,
    pager_shut,
)
from cython.cimports.uzswap.core.paging.trap import arenas_forked
from cython.cimports.uzswap.core.paging.uffd import uz_say_away
from cython.cimports.uzswap.core.store.inheriting import core_inherit, core_keep, core_lend, core_shut

# Guards the list, and has one fork under way at a time: held from its first step to its last.
lock = cython.declare(pthread_mutex_t)
first = cython.declare(cython.pointer(Kin), cython.NULL)
# The process whose engines can be used here.
home_pid = cython.declare(cython.int, 0)
# The fork that is under way is one of Python's.
seen = cython.declare(cython.int, 0)


def kin_add(c):
    """0, or -1 without memory."""
    global first
    k = cython.cast(cython.pointer(Kin), calloc(1, cython.sizeof(Kin)))
    if k == cython.NULL:
        return -1
    k.c = c
    pthread_mutex_lock(cython.address(lock))
    k.next = first
    first = k
    pthread_mutex_unlock(cython.address(lock))
    return 0


def kin_drop(c):
    """Before an engine is taken down."""
    global first
    pthread_mutex_lock(cython.address(lock))
    k = first
    previous: cython.pointer(Kin) = cython.NULL
    while k != cython.NULL and k.c != c:
        previous = k
        k = k.next
    if k != cython.NULL:
        if previous == cython.NULL:
            first = k.next
        else:
            previous.next = k.next
    pthread_mutex_unlock(cython.address(lock))
    free(k)


def kin_pager(c, p):
    """An engine has pages from now on, or, with NULL, has none any more."""
    pthread_mutex_lock(cython.address(lock))
    k = first
    while k != cython.NULL and k.c != c:
        k = k.next
    if k != cython.NULL:
        k.p = p
    pthread_mutex_unlock(cython.address(lock))


def home():
    return home_pid


def announce(on: cython.bint):
    """The calling thread is about to fork, or has."""
    uz_announce(on)


def prepare():
    global seen
    pthread_mutex_lock(cython.address(lock))
    seen = uz_is_announced()
    k = first
    while k != cython.NULL:
        # Where a thread was killed nobody knows what it had locked.
        k.lent = seen and k.c.pid == home_pid and not k.c.abandoned and not (k.p != cython.NULL and k.p.broken)
        if k.lent:
            core_shut(k.c)
        k = k.next
    k = first
    while k != cython.NULL:
        if k.lent:
            uz_wait_empty(cython.address(k.c.gate), cython.address(k.p.broken) if k.p != cython.NULL else cython.NULL)
        k = k.next
    k = first
    while k != cython.NULL:
        if k.lent and k.p != cython.NULL:
            pager_shut(k.p)
        k = k.next
    k = first
    while k != cython.NULL:
        if k.lent:
            core_lend(k.c)
            if k.p != cython.NULL and not k.p.broken:
                pager_lend(k.p)
        k = k.next


def in_parent():
    k = first
    while k != cython.NULL:
        if k.lent:
            if k.p != cython.NULL:
                pager_keep(k.p)
            core_keep(k.c)
            k.lent = 0
        k = k.next
    pthread_mutex_unlock(cython.address(lock))


def in_child():
    global home_pid
    pthread_mutex_unlock(cython.address(lock))  # of this thread's, which forked
    arenas_forked()
    handlers_forked()
    k = first
    while k != cython.NULL:
        here: cython.bint = k.lent and not (k.p != cython.NULL and (k.p.broken or k.p.relented))
        if here:
            core_inherit(k.c)
        if k.p != cython.NULL and not (here and pager_inherit(k.p) == 0):
            if k.lent and k.p.relented:
                uz_say_away(EAGAIN)
            if not k.p.away:
                pager_away(k.p, k.lent and not k.p.relented)
            k.p = cython.NULL
        k.lent = 0
        k = k.next
    if seen:
        home_pid = getpid()


home_pid = getpid()
pthread_mutex_init(cython.address(lock), cython.NULL)
if pthread_atfork(prepare, in_parent, in_child):
    raise MemoryError("pthread_atfork")

"""Files that forked children read: what a parent keeps for them, and for how long.

A child has the entries that its parent had, and reads those on disk from its parent's file; it writes to a file of its
own.  The parent goes on appending, but a segment in which something was when a child was forked is not used anew, cut
or punched while such a child, or one of its own children, is there: it is SEG_LENT when the parent itself has no use
for it any more.

Who is there tells a pipe: children inherit its second end, which is closed on exec, and nobody uses it.  When the last
one is gone, whatever ended it, the first end says so.  It is looked at when a segment is wanted, when others have been
freed, and at each fork; by threads that have the program's table of descriptors.  When the program has closed it there
nobody knows, and what is lent stays so.  Children that were forked one after the other while nothing moved share one.

The caller serialises.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.posix.unistd import close
from cython.cimports.uzswap.core.device.device import NO_SEGMENT, segment_free
from cython.cimports.uzswap.core.device.device_io import device_io_stop
from cython.cimports.uzswap.core.device.record import KEY_BYTES
from cython.cimports.uzswap.core.libc_ext import (
    uz_close_ours,
    uz_identity,
    uz_is_still,
    uz_lease,
    uz_lease_ended,
    uz_wipe,
)


def lease_begin(d):
    """Before a fork: the number of the end that the child is to keep; -1 when there is none, or nothing to lend."""
    if d.nr_free + d.nr_lent >= d.nr:
        return -1
    leases_look(d)
    if (
        d.nr_leases
        and not d.moved
        and uz_is_still(d.leases[d.nr_leases - 1].ends[1], d.leases[d.nr_leases - 1].identities[1])
    ):
        return d.leases[d.nr_leases - 1].ends[1]
    if d.nr_leases:
        lease_seal(cython.address(d.leases[d.nr_leases - 1]))
    d.epoch += 1
    d.moved = 0
    if d.leases == cython.NULL:
        d.leases = cython.cast(cython.pointer(Lease), calloc(MOST_LEASES, cython.sizeof(Lease)))
    if d.leases == cython.NULL or d.nr_leases == MOST_LEASES:
        d.for_good = 1
        return -1
    lease = cython.address(d.leases[d.nr_leases])
    if uz_lease(lease.ends):
        d.for_good = 1
        return -1
    uz_identity(lease.ends[0], lease.identities[0])
    uz_identity(lease.ends[1], lease.identities[1])
    lease.epoch = d.epoch
    d.nr_leases += 1
    return lease.ends[1]


def lease_seal(lease):
    """No other child may have it: its end can be told from now on."""
    if lease.ends[1] >= 0:
        uz_close_ours(lease.ends[1], lease.identities[1])
        lease.ends[1] = -1


def leases_look(d):
    """End those that no child has any more, and free what was lent to these alone."""
    i: cython.int
    left: cython.int = 0
    if not d.nr_leases or not uz_is_still(d.leases[d.nr_leases - 1].ends[0], d.leases[d.nr_leases - 1].identities[0]):
        return
    if d.moved:
        lease_seal(cython.address(d.leases[d.nr_leases - 1]))
    for i in range(d.nr_leases):
        lease = cython.address(d.leases[i])
        if lease.ends[1] < 0 and uz_is_still(lease.ends[0], lease.identities[0]) and uz_lease_ended(lease.ends[0]):
            close(lease.ends[0])
            continue
        d.leases[left] = lease[0]
        left += 1
    if left < d.nr_leases:
        d.nr_leases = left
        lent_release(d)


def lent_release(d):
    """Free the segments that nobody has any more who was forked in their time."""
    i: cython.int
    s = d.lent
    d.lent = NO_SEGMENT
    d.nr_lent = 0
    while s != NO_SEGMENT:
        g = cython.address(d.segments[s])
        after = g.next
        wanted: cython.bint = d.for_good
        for i in range(d.nr_leases):
            wanted = wanted or g.born < d.leases[i].epoch <= g.died
        if wanted:
            g.next = d.lent
            d.lent = s
            d.nr_lent += 1
        else:
            segment_free(d, s)
        s = after


def leases_drop(d):
    """Forget them all, as their parent that ends, or their parent's child."""
    i: cython.int
    for i in range(d.nr_leases):
        lease_seal(cython.address(d.leases[i]))
        uz_close_ours(d.leases[i].ends[0], d.leases[i].identities[0])
    free(d.leases)
    d.leases = cython.NULL
    d.nr_leases = 0


def inherited_close(file):
    """Nothing of a file is wanted any more."""
    device_io_stop(cython.address(file.io))
    uz_close_ours(file.io.fd, file.io.identity)
    if file.io.also >= 0:
        uz_close_ours(file.io.also, file.io.also_identity)
    inherited_free(file)


def inherited_free(file):
    if file.secret.key != cython.NULL:
        uz_wipe(file.secret.key, KEY_BYTES)
    free(file.segments)
    free(file)

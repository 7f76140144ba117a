"""Lists of resident values by how lately they were used, as the kernel's lruvec (include/linux/mmzone.h)."""

import cython


def list_init(l):
    l.end.prev = l.end.next = cython.address(l.end)
    l.end.owner = cython.NULL
    l.length = l.nbytes = 0


def list_abandon(l):
    """Let what is on it be on no list."""
    link = l.end.next
    while link != cython.address(l.end):
        following = link.next
        link.prev = link.next = cython.NULL
        link = following
    list_init(l)


def add_hottest(l, link, nbytes):
    link.prev = l.end.prev
    link.next = cython.address(l.end)
    link.prev.next = link
    l.end.prev = link
    l.length += 1
    l.nbytes += nbytes


def add_coldest(l, link, nbytes):
    link.next = l.end.next
    link.prev = cython.address(l.end)
    link.next.prev = link
    l.end.next = link
    l.length += 1
    l.nbytes += nbytes


def take_off(l, link, nbytes):
    link.prev.next = link.next
    link.next.prev = link.prev
    link.prev = link.next = cython.NULL
    l.length -= 1
    l.nbytes -= nbytes


def coldest(l):
    """NULL when there is none."""
    return l.end.next if l.length else cython.NULL


def inactive_is_low(inactive, active):
    """As mm/vmscan.c has it: the share that the inactive list is to have gets smaller with the size of both."""
    gb = (inactive.nbytes + active.nbytes) >> 30
    ratio: cython.longlong = 1
    while gb and (ratio + 1) * (ratio + 1) <= 10 * gb:  # int_sqrt(10 * gb)
        ratio += 1
    return inactive.nbytes * ratio < active.nbytes

"""A fork: the child has all entries.  Those on disk it reads from its parent's file, and it writes to one of its own.

Entries, LRUs, counters and the pool are private memory: in the child they are what they were, and its own.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.device.device import FILE_SHIFT, NR_FILES, Device
from cython.cimports.uzswap.core.device.device_io import (
    device_io_hand,
    device_io_handed,
    device_io_inherit,
    device_io_wait,
)
from cython.cimports.uzswap.core.device.lending import Inherited, inherited_free, lease_begin, leases_drop
from cython.cimports.uzswap.core.device.read_around import windows_free
from cython.cimports.uzswap.core.device.record import KEY_BYTES
from cython.cimports.uzswap.core.gate import uz_gate_init, uz_open, uz_shut
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_init, uz_close_ours, uz_secret_inherit, uz_wipe
from cython.cimports.uzswap.core.store.stream import streams_inherit

# In the parent


def core_shut(c):
    """Let nobody begin anything; who is within may go on."""
    uz_shut(cython.address(c.gate))


def core_lend(c):
    """All is at rest: have the child inherit the files from which it is to read."""
    k: cython.int
    c.lease = -1
    c.device.io.handed = c.device.io.also_handed = -1
    if c.has_device and c.device.live_bytes:
        device_io_hand(cython.address(c.device.io))
        c.lease = lease_begin(cython.address(c.device))
    for k in range(NR_FILES):
        if c.files[k] != cython.NULL:
            c.files[k].io.handed = c.files[k].io.also_handed = -1
            if c.files[k].live:
                device_io_hand(cython.address(c.files[k].io))


def core_keep(c):
    """After the fork.  Of pages, which are served again, some may have been loaded: nothing may be live any more."""
    k: cython.int
    device_io_handed(cython.address(c.device.io))
    for k in range(NR_FILES):
        if c.files[k] != cython.NULL:
            device_io_handed(cython.address(c.files[k].io))
    uz_open(cython.address(c.gate))


# In the child


def core_inherit(c):
    """What cannot be read from its parent's file is an I/O error of whoever asks for it."""
    pthread_mutex_init(cython.address(c.lock), cython.NULL)
    pthread_mutex_init(cython.address(c.cleaning), cython.NULL)
    pthread_mutex_init(cython.address(c.sparing), cython.NULL)
    uz_gate_init(cython.address(c.gate))
    streams_inherit(c)
    uz_secret_inherit(c.keys, NR_FILES * KEY_BYTES)
    # The numbers of files may be others' from now on.
    windows_free(cython.address(c.around))
    if c.has_device:
        files_inherit(c)
    c.pid = getpid()


def files_inherit(c):
    k: cython.int
    d = cython.address(c.device)
    for k in range(NR_FILES):
        file = c.files[k]
        if file == cython.NULL:
            continue
        if not file.live:
            uz_close_ours(file.io.fd, file.io.identity)
            uz_close_ours(file.io.also, file.io.also_identity)
            inherited_free(file)
            c.files[k] = cython.NULL
        else:
            # Where it fails reading does, too.
            device_io_inherit(cython.address(file.io), file.io.also_handed)
    c.file_unused = 0
    if d.nr_leases and c.lease >= 0:
        d.leases[d.nr_leases - 1].ends[1] = -1  # it is ours to keep
    leases_drop(d)
    if d.live_bytes:
        inherit_own(c)
    elif d.io.pid:
        uz_close_ours(d.io.fd, d.io.identity)
    begin_anew(c)
    for k in range(NR_FILES):
        if c.files[k] != cython.NULL and c.files[k].io.pid == getpid():
            device_io_wait(cython.address(c.files[k].io))


def inherit_own(c):
    """The file that was its parent's own."""
    d = cython.address(c.device)
    file = cython.cast(cython.pointer(Inherited), calloc(1, cython.sizeof(Inherited)))
    if file == cython.NULL:
        return
    file.io = d.io
    file.io.also = -1
    file.secret = d.secret
    file.segments = d.segments
    file.live = d.live_bytes
    c.files[d.file >> FILE_SHIFT] = file
    device_io_inherit(cython.address(file.io), c.lease)


def begin_anew(c):
    """A device without a file as yet: it is made when something is to be written (stream.device_own())."""
    k: uint64_t = 0
    fresh: Device
    d = cython.address(c.device)
    memset(cython.address(fresh), 0, cython.sizeof(Device))
    fresh.directory = d.directory
    fresh.most = d.most
    while k < NR_FILES - 1 and (c.files[k] != cython.NULL or (d.live_bytes and k == d.file >> FILE_SHIFT)):
        k += 1
    if k == NR_FILES - 1:
        # As many generations have something on disk yet as there can be: what is written has no place.
        fresh.most = 0
    fresh.file = k << FILE_SHIFT
    if c.files[d.file >> FILE_SHIFT] == cython.NULL:
        # Nothing is read from it.
        if d.secret.key != cython.NULL:
            uz_wipe(d.secret.key, KEY_BYTES)
        free(d.segments)
    if c.keys != cython.NULL:
        fresh.secret.key = c.keys + k * KEY_BYTES
    d[0] = fresh

"""The device behind an engine: see engine.pyi."""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.errno import EBUSY, EINVAL, ENOMEM
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.uzswap.core.boundary.codecs import Codecs
from cython.cimports.uzswap.core.boundary.opened import core_lock, core_unlock
from cython.cimports.uzswap.core.device.device import BLOCK, NR_FILES, RESERVE, SEGMENT_BYTES, device_init, device_wipe
from cython.cimports.uzswap.core.device.device_io import ASK_TRUNCATE, ASK_WRITE, device_ask_and_wait, device_settle
from cython.cimports.uzswap.core.device.lending import leases_look
from cython.cimports.uzswap.core.device.record import KEY_BYTES, opener_new, secret_load
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import strndup, uz_private, uz_private_free, uz_secret
from cython.cimports.uzswap.core.store.state import trim_device

from uzswap.core.boundary.names import DeviceInfo


@cython.cclass
class Backing(Codecs):
    def make_keys(self):
        c = self._open()
        if c.has_device:
            return -EBUSY
        if c.keys != cython.NULL:
            return 0
        failed: cython.int = secret_load()
        if not failed:
            c.keys = cython.cast(cython.pointer(uint8_t), uz_secret(NR_FILES * KEY_BYTES, cython.address(failed)))
        if not failed:
            c.spare.opener = opener_new()
            if c.spare.opener == cython.NULL:
                uz_private_free(c.keys, NR_FILES * KEY_BYTES)
                c.keys = cython.NULL
                failed = -ENOMEM
        return failed

    def attach_device(
        self,
        fd: cython.int,
        nbytes: uint64_t,
        direct: cython.bint,
        nonce: uint64_t = 0,
        directory: bytes = b"/var/tmp",
        front: uint32_t = 0,
    ):
        c = self._open()
        if c.has_device:
            return -EBUSY
        if nbytes // SEGMENT_BYTES < 1 + RESERVE or front % BLOCK or front > SEGMENT_BYTES // 2:
            return -EINVAL
        where = strndup(directory, len(directory))
        if where == cython.NULL:
            return -ENOMEM
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            failed = device_init(cython.address(c.device), fd, nbytes, direct, c.keys, nonce, front, where)
            uz_leave(cython.address(c.gate))
        c.has_device = failed == 0
        return failed

    def write_block(self, offset: uint64_t, content: bytes):
        c = self._device()
        n = cython.cast(cython.size_t, BLOCK)
        block = cython.cast(cython.p_char, uz_private(n))
        if block == cython.NULL:
            return -ENOMEM
        memcpy(block, PyBytes_AS_STRING(content), min(len(content), BLOCK))
        with cython.nogil:
            error = device_ask_and_wait(cython.address(c.device.io), ASK_WRITE, block, offset, n)
        uz_private_free(block, n)
        return error

    def truncate_device(self, nbytes: uint64_t):
        c = self._device()
        with cython.nogil:
            error = device_ask_and_wait(cython.address(c.device.io), ASK_TRUNCATE, cython.NULL, nbytes, 0)
        return error

    def wipe_device(self):
        c = self._device()
        with cython.nogil:
            error = device_wipe(cython.address(c.device))
        return error

    def settle_device(self):
        c = self._device()
        self.lent()
        with cython.nogil:
            trim_device(c)
            device_settle(cython.address(c.device.io), cython.address(c.trimming))

    def lent(self):
        """Whether a forked child, or one of its own, may read what is on the device."""
        c = self._device()
        d = cython.address(c.device)
        with cython.nogil:
            core_lock(c)
            leases_look(d)
            if d.nr_leases:
                # Nobody else is forked just now: whether anybody has the last one can be told.
                d.moved = 1
                leases_look(d)
            found: cython.bint = d.nr_leases or d.for_good
            core_unlock(c)
        return found

    def _device(self):
        c = self._open()
        if not c.has_device:
            raise ValueError("the engine has no device")
        return c

    def device(self):
        c = self._open()
        if not c.has_device:
            return None
        d = cython.address(c.device)
        with cython.nogil:
            core_lock(c)
            has_aio = c.has_aio
            nr, nr_free, live, used = d.nr, d.nr_free, d.live_bytes, d.used_bytes
            cleaned, punched, direct, cached = d.cleaned, d.punched, d.io.direct, c.cached_bytes
            encrypted: cython.bint = d.secret.key != cython.NULL
            core_unlock(c)
        return DeviceInfo(
            nr, nr_free, live, used - live, bool(direct), bool(has_aio), bool(encrypted), cleaned, punched, cached
        )

"""Records: what stands on the device for an entry, and how it is known again.

A record says whose it is (handle, length, size) and is sealed.  With a key that is AES-256-GCM over everything but the
seal itself, so that nothing tells where one ends, or how large it is; without one, a checksum whose seed the engine has
drawn.  Either way what is damaged, or of another entry, another engine or another time, is not taken for an entry's.

A nonce must never be used twice with a key.  It is where and when a record was written: the number of the taking of its
segment (Device.takings, which only grows), and its offset there.  No place is written twice between two takings, but
for a write that failed, which is repeated with the same bytes.  So no nonce is on the device, and bytes that are
misdirected, or stale in their own place, open for nobody.  Each file has a key of its own, drawn when it is made: what
a forked child writes, and what its parent does, have no key in common.
"""

import cython
from cython.cimports.libc.errno import ENOMEM
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.device.libcrypto import (
    uz_gcm_free,
    uz_gcm_load,
    uz_gcm_new,
    uz_gcm_open,
    uz_gcm_peek,
    uz_gcm_rekey,
    uz_gcm_seal,
    uz_no_key,
)
from cython.cimports.uzswap.core.libc_ext import uz_random64, uz_random_bytes


def record_bytes(length):
    return (length + cython.cast(uint32_t, cython.sizeof(Record)) + 7) & ~7


def secret_load():
    """Look for libcrypto.  0, or -EOPNOTSUPP.  The caller serialises."""
    return uz_gcm_load()


def opener_new():
    """What sealer_lent() takes; NULL without memory."""
    return uz_gcm_new(uz_no_key, 0)


def opener_free(opener):
    if opener != cython.NULL:
        uz_gcm_free(opener)


def secret_new(secret):
    """Draw what the records of a new file are sealed with: the key, where there is to be one, too."""
    secret.nonce = uz_random64()
    if secret.key != cython.NULL:
        uz_random_bytes(secret.key, KEY_BYTES)


def sealer_begin(s, secret, seals):
    """0 or -ENOMEM; then there is nothing to be ended."""
    s.nonce = secret.nonce
    s.gcm = cython.NULL
    s.is_lent = 0
    if secret.key != cython.NULL:
        s.gcm = uz_gcm_new(secret.key, seals)
        return 0 if s.gcm != cython.NULL else -ENOMEM
    return 0


def sealer_lent(s, secret, opener):
    """sealer_begin() of one that opens, without needing memory, where there is an opener."""
    if opener == cython.NULL or secret.key == cython.NULL:
        return sealer_begin(s, secret, 0)
    s.nonce = secret.nonce
    s.gcm = opener
    s.is_lent = 1
    return uz_gcm_rekey(opener, secret.key)


def sealer_end(s):
    if s.gcm == cython.NULL:
        return
    if s.is_lent:
        # No key stays in memory that can be dumped or swapped out.
        uz_gcm_rekey(s.gcm, uz_no_key)
    else:
        uz_gcm_free(s.gcm)


def sealed_bytes(length):
    """All but the seal: the padding as well, or it would be what was in memory before."""
    return record_bytes(length) - cython.cast(uint32_t, 2 * cython.sizeof(uint64_t))


def checksum(nonce, r, length):
    return XXH3_64bits_withSeed(cython.address(r.handle), sealed_bytes(length), nonce)


def record_seal(s, r, taken, offset):
    """Seal a record in memory that is to be written to that offset of a segment.  0 or -ENOMEM."""
    if s.gcm == cython.NULL:
        r.seal[0] = checksum(s.nonce, r, r.length)
        r.seal[1] = 0
        return 0
    text = cython.cast(cython.pointer(uint8_t), cython.address(r.handle))
    tag = cython.cast(cython.pointer(uint8_t), cython.address(r.seal[0]))
    return uz_gcm_seal(s.gcm, taken, offset, text, sealed_bytes(r.length), tag)


def record_open(s, r, handle, length, size, taken, offset, room):
    """The record in clear: r, or what was made of it in `room`, of record_bytes(length).

    NULL when it is not what was written there for this entry.
    """
    clear = r
    if s.gcm == cython.NULL:
        if r.length != length or r.seal[1] or r.seal[0] != checksum(s.nonce, r, length):
            return cython.NULL
    else:
        text = cython.cast("const uint8_t *", cython.address(r.handle))
        tag = cython.cast("const uint8_t *", cython.address(r.seal[0]))
        opened = cython.cast(cython.pointer(Record), room)
        out = cython.cast(cython.pointer(uint8_t), cython.address(opened.handle))
        if uz_gcm_open(s.gcm, taken, offset, text, sealed_bytes(length), tag, out):
            return cython.NULL
        clear = opened
    if clear.handle != handle or clear.length != length or clear.size != size:
        return cython.NULL
    return clear


def record_peek(s, r, taken, offset, header):
    """What a record says that it is.  Nobody has vouched for it."""
    header[0] = r[0]
    if s.gcm != cython.NULL:
        n = cython.cast(uint32_t, cython.sizeof(Record) - 2 * cython.sizeof(uint64_t))
        text = cython.cast("const uint8_t *", cython.address(r.handle))
        uz_gcm_peek(s.gcm, taken, offset, text, n, cython.cast(cython.pointer(uint8_t), cython.address(header.handle)))


def is_padding(r):
    """Whether zeros stand where a record could: the end of a flight."""
    return (r.seal[0] | r.seal[1] | r.handle) == 0 and (r.length | r.size) == 0

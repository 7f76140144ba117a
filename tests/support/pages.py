"""Pages that compress to an exact length.

A page is ``lead`` random bytes, a run of one byte, and ``rest`` random bytes, so its LZ4 block is: a token, the lead
and one byte of the run as literals, one match of offset 1, a token, the rest as literals.  The run comes before the
long literals because LZ4 probes fewer and fewer positions the longer it finds nothing.  Which (lead, rest) gives a
length is found once with the compressor itself; afterwards a page costs one ``randbytes`` and one compression that
verifies it.
"""

import ctypes
import ctypes.util
import random
import threading
from collections.abc import Callable, Iterator
from functools import cache

PAGE_SIZE = 4096
ZSTD_LEVEL = 3  # ZSTD_CLEVEL_DEFAULT

#: lz4_Block_format.md: a match has at least 4 bytes (and copies one before them); the last 5 bytes are always literals.
_MIN_RUN = 5
_MIN_REST = 5

_scratch = threading.local()


def _library(name: str) -> ctypes.CDLL:
    found = ctypes.util.find_library(name)
    if found is None:
        raise RuntimeError(f"lib{name} is not installed; on Debian: apt install lib{name}-dev")
    return ctypes.CDLL(found)


@cache
def _compressor(codec: str) -> Callable[[ctypes.Array[ctypes.c_char], bytes], int]:
    if codec == "lz4":
        lz4 = _library("lz4").LZ4_compress_default
        lz4.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        lz4.restype = ctypes.c_int
        return lambda out, data: int(lz4(data, out, len(data), len(out)))
    if codec == "zstd":
        zstd = _library("zstd").ZSTD_compress
        zstd.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
        zstd.restype = ctypes.c_size_t
        return lambda out, data: int(zstd(out, len(out), data, len(data), ZSTD_LEVEL))
    raise ValueError(f"codec {codec!r}: only lz4 and zstd are known")


def compressed_length(data: bytes, codec: str = "lz4") -> int:
    """Bytes that `data` takes when the system's library compresses it into a buffer with room to spare.

    Above ``len(data)`` for incompressible data.  May be called from any thread.
    """
    room = len(data) + len(data) // 255 + 64  # at least LZ4_COMPRESSBOUND and ZSTD_COMPRESSBOUND for up to 64 KiB
    out = getattr(_scratch, "out", None)
    if out is None or len(out) < room:
        out = _scratch.out = ctypes.create_string_buffer(room)
    length = _compressor(codec)(out, data)
    if not 0 < length <= room:
        raise RuntimeError(f"{codec} failed on {len(data)} bytes: returned {length}")
    return length


def _compose(lead: int, rest: int, size: int, seed: str) -> bytes:
    source = random.Random(seed)
    filler, *noise = source.randbytes(1 + lead + rest)
    run = bytes([filler]) * (size - lead - rest)
    return bytes(noise[:lead]) + run + bytes(noise[lead:])


@cache
def _shape(length: int, codec: str, size: int) -> tuple[int, int]:
    """(lead, rest) whose page compresses to `length` bytes; ValueError when none does."""
    for lead in range(15 if length < size else 0):  # 15 literals and more cost LZ4 a further length byte
        rest = max(length - lead - 26, _MIN_REST)
        for step in range(12):
            if not _MIN_REST <= rest <= size - lead - _MIN_RUN:
                break
            got = compressed_length(_compose(lead, rest, size, f"shape {step}"), codec)
            if got == length:
                return lead, rest
            rest += length - got
    raise ValueError(f"no page of {size} bytes was found that {codec} compresses to {length} bytes")


def page_of_length(length: int, seed: int = 0, codec: str = "lz4", size: int = PAGE_SIZE) -> bytes:
    """A page of `size` bytes that `codec` compresses to exactly `length` bytes.

    Deterministic for a given library; different seeds give different pages.  Never same-filled.  A `length` of `size`
    means "incompressible": a random page, which zswap keeps raw.

    Raises
    ------
    ValueError
        There is no such page.  lz4 reaches every length from 26 to 4095 for a page of 4096.
    """
    if length == size:
        return random_page(seed, size)
    lead, rest = _shape(length, codec, size)
    for attempt in range(1000):  # chance matches in the noise change the length of about one page in a hundred
        page = _compose(lead, rest, size, f"{codec} {size} {length} {seed} {attempt}")
        if compressed_length(page, codec) == length and page[8:] != page[:-8]:
            return page
    raise ValueError(f"no page of {size} bytes with seed {seed} was found that {codec} compresses to {length} bytes")


def pages_of_length(length: int, count: int, seed: int = 0, codec: str = "lz4", size: int = PAGE_SIZE) -> bytes:
    """`count` different pages of :func:`page_of_length` in one buffer; `seed` numbers the first of them."""
    return b"".join(page_of_length(length, seed + i, codec, size) for i in range(count))


def split(buffer: bytes, size: int = PAGE_SIZE) -> Iterator[bytes]:
    """The pages of a buffer, one after the other."""
    return (buffer[at : at + size] for at in range(0, len(buffer), size))


def random_page(seed: int = 0, size: int = PAGE_SIZE) -> bytes:
    """A page that no compressor makes smaller."""
    return random.Random(f"random {seed}").randbytes(size)


def zero_page(size: int = PAGE_SIZE) -> bytes:
    """A page of zeros: SPEC's zeromap case."""
    return bytes(size)


def filled_page(byte: int, size: int = PAGE_SIZE) -> bytes:
    """A page of one repeated byte (0..255): same-filled, 26 bytes as an lz4 entry."""
    return bytes([byte]) * size

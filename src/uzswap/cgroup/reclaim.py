"""The grammar of ``memory.reclaim``, and nothing else.

    size [key=value ...]

The size comes first, in memparse's words; only SPACE separates the keys.  Pieces are judged from left to right and the
first bad one ends with EINVAL before any work is done.  Two tables say what there is: :data:`KEYS` how each key's value
reads, :data:`SOURCES` which keys go with which source.  A further key or source is one more row.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, SupportsIndex

from uzswap.errors import os_error
from uzswap.units import WHITESPACE, memparse, parse_integer, parse_size

__all__ = ["KEYS", "SOURCES", "ReclaimRequest", "min_age_of", "parse", "request"]

Swappiness = int | Literal["max"]

#: mm/internal.h and mm/vmscan.c: MIN_SWAPPINESS..MAX_SWAPPINESS
_MAX_SWAPPINESS: Final = 200
#: lib/parser.c copies a number into this many bytes, its NUL included, before it reads it
_NUMBER_BUF_LEN: Final = 24
#: mm/vmscan.c of the series: a source name is copied into this many bytes, its NUL included
_SOURCE_BUF_LEN: Final = 16
_INT_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class ReclaimRequest:
    """One write to ``memory.reclaim``."""

    #: exact bytes, modulo 2**64: resident bytes without a source, compressed bytes with ``source=zswap``
    nbytes: int
    #: 0..200 or "max"; None leaves it to the system
    swappiness: Swappiness | None = None
    #: None for ordinary reclaim, else a name in SOURCES
    source: str | None = None
    #: seconds; entries younger than that are not candidates
    min_age: int | None = None


def _invalid(text: str) -> OSError:
    return os_error(errno.EINVAL, f"memory.reclaim: {text}")


def _match_int(value: str) -> int | None:
    """Read a %d of lib/parser.c: base 0, "-" the only sign, wrapped to 64 bits; None when it does not match.

    A lone "-" matches and is 0, as in the kernel.
    """
    negative = value.startswith("-")
    number, end = parse_integer(value, negative)
    if end == 0 or end < len(value) or len(value) >= _NUMBER_BUF_LEN:
        return None
    number = (-number if negative else number) & ((1 << 64) - 1)
    return number - (1 << 64) if number >> 63 else number


def _swappiness(value: str) -> Swappiness:
    if value == "max":
        return "max"
    number = _match_int(value)
    if number is None or not 0 <= number <= _MAX_SWAPPINESS:
        raise _invalid(f"swappiness={value} must be 0..{_MAX_SWAPPINESS} or max")
    return number


def _source(value: str) -> str:
    if len(value) >= _SOURCE_BUF_LEN or value not in SOURCES:
        known = ", ".join(name for name in SOURCES if name)
        raise _invalid(f"source={value} is unknown, there is: {known}")
    return value


def min_age_of(value: str) -> int:
    """Read the value of ``min_age=``, whole seconds; raises EINVAL."""
    number, end = parse_integer(value)
    if not value or end < len(value) or number > _INT_MAX:
        raise _invalid(f"min_age={value} must be whole seconds, 0..{_INT_MAX}")
    return number


#: key -> how its value reads; the key is also the field of ReclaimRequest
KEYS: Final[dict[str, Callable[[str], Any]]] = {
    "swappiness": _swappiness,
    "source": _source,
    "min_age": min_age_of,
}

#: source -> the keys that go with it; None is ordinary reclaim of resident memory
SOURCES: Final[dict[str | None, frozenset[str]]] = {
    None: frozenset({"swappiness"}),
    "zswap": frozenset({"min_age"}),
}


def _build(nbytes: int, pairs: Iterable[tuple[str, str]]) -> ReclaimRequest:
    """Read the values one by one, then test which keys exclude each other; the last of a repeated key wins."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        values[key] = KEYS[key](value)
    source = values.get("source")
    excluded = values.keys() - SOURCES[source] - {"source"}
    if excluded:
        where = f"together with source={source}" if source else "without a source"
        raise _invalid(f"{' and '.join(sorted(excluded))} cannot be used {where}")
    return ReclaimRequest(nbytes, **values)


def _split(piece: str) -> tuple[str, str]:
    key, equals, value = piece.partition("=")
    if not equals or key not in KEYS:
        raise _invalid(f"{piece!r} is not one of {' '.join(f'{known}=' for known in KEYS)}")
    return key, value


def parse(text: bytes | str) -> ReclaimRequest:
    """Read one write to ``memory.reclaim``.

    Parameters
    ----------
    text
        What was written.  Bytes behind a NUL do not count.

    Raises
    ------
    OSError
        EINVAL, for every error there is.

    >>> parse("10M source=zswap")
    ReclaimRequest(nbytes=10485760, swappiness=None, source='zswap', min_age=None)
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")  # one character a byte: nothing outside ASCII means anything here
    text = text.partition("\0")[0].strip(WHITESPACE)
    nbytes, rest = memparse(text)
    if len(rest) == len(text):
        raise _invalid(f"{text!r} does not begin with a size: write bytes such as 10M, then the keys")
    pieces = (piece for piece in rest.strip(WHITESPACE).split(" ") if piece)
    return _build(nbytes, map(_split, pieces))


def request(
    size: str | SupportsIndex,
    *,
    source: str | None = None,
    swappiness: int | str | None = None,
    min_age: int | None = None,
) -> ReclaimRequest:
    """Make a request from arguments, under the rules of the text form.

    Parameters
    ----------
    size
        Bytes, or text such as "10M".

    Raises
    ------
    OSError
        EINVAL as in :func:`parse`; for the size it is an :class:`~uzswap.errors.InvalidArgumentError`.
    """
    given = {"swappiness": swappiness, "source": source, "min_age": min_age}
    return _build(parse_size(size), ((key, str(value)) for key, value in given.items() if value is not None))

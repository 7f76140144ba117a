"""Numbers and sizes, read and written as the kernel does.

Two families live here.  The kernel's own parsers (``memparse``, ``kstrto*``) keep every odd corner, because a control
file has to accept and refuse exactly what the kernel's does.  :func:`parse_size` is for arguments of the Python API: it
uses the same suffixes, but it wants digits and it does not wrap.

Text handed to the kernel's parsers is a C string that was already cut at its first NUL; only ASCII means anything.
All functions are pure and can be called from any thread.
"""

from __future__ import annotations

import errno
import operator
import os
from typing import Final, SupportsIndex

from uzswap.errors import InvalidArgumentError, os_error

__all__ = [
    "NO_LIMIT",
    "PAGE_SIZE",
    "WHITESPACE",
    "format_size",
    "is_path",
    "kstrtobool",
    "kstrtoint",
    "kstrtouint",
    "memparse",
    "page_counter_memparse",
    "parse_integer",
    "parse_size",
    "round_up_to_page",
]

PAGE_SIZE: Final = 4096
#: "max" of a limit, in bytes; in the data plane it is UNLIMITED (core/store/entries.py)
NO_LIMIT: Final = 1 << 62
#: what the kernel's isspace() is true for; str.strip() alone would also take U+0085 and others
WHITESPACE: Final = " \t\n\v\f\r"

_SUFFIXES: Final = "KMGTPE"
_DIGITS: Final = "0123456789abcdef"
_U64: Final = (1 << 64) - 1
_INT_MAX: Final = (1 << 31) - 1
_UINT_MAX: Final = (1 << 32) - 1


def round_up_to_page(nbytes: int) -> int:
    """Return the bytes of as many whole pages as hold ``nbytes``."""
    return -(-nbytes // PAGE_SIZE) * PAGE_SIZE


def _radix(text: str, start: int) -> tuple[int, int]:
    """Base 0 as lib/kstrtox.c reads it: return (base, index of the first digit)."""
    if text[start : start + 1] != "0":
        return 10, start
    x, digit = text[start + 1 : start + 2], text[start + 2 : start + 3]
    if x in ("x", "X") and digit and digit.lower() in _DIGITS:
        return 16, start + 2
    return 8, start


def parse_integer(text: str, start: int = 0) -> tuple[int, int]:
    """Read an unsigned number in base 0 at ``text[start:]``; return it, not wrapped, and the index behind it.

    "0x" before a hex digit means 16, another leading "0" means 8, else 10.  No digits at all is the number 0 with
    nothing consumed.
    """
    base, position = _radix(text, start)
    value = 0
    while position < len(text):
        digit = _DIGITS.find(text[position].lower()) if text[position].isascii() else -1
        if not 0 <= digit < base:
            break
        value = value * base + digit
        position += 1
    return value, position


def _with_suffix(text: str) -> tuple[int, int]:
    """Read a number and at most one of K M G T P E; return the product, not wrapped, and the index behind it."""
    value, position = parse_integer(text)
    suffix = text[position : position + 1]
    if suffix and suffix.isascii() and suffix.upper() in _SUFFIXES:
        return value << 10 * (_SUFFIXES.index(suffix.upper()) + 1), position + 1
    return value, position


def memparse(text: str) -> tuple[int, str]:
    """Read a size as lib/cmdline.c does; return it modulo 2**64, and the text that is left over.

    The number may have no digits at all ("K" is 0), "0x1E" is 30, and overflow wraps silently ("16E" is 0).

    >>> memparse("10M source=zswap")
    (10485760, ' source=zswap')
    """
    value, position = _with_suffix(text)
    return value & _U64, text[position:]


def page_counter_memparse(text: str) -> int:
    """Read a limit as the kernel's control files do; return bytes, a multiple of 4096, or NO_LIMIT.

    Blanks around it are stripped; exactly "max" is NO_LIMIT; a size is rounded down to pages and capped at NO_LIMIT.
    An empty text is 0, as in the kernel.

    Raises
    ------
    OSError
        EINVAL when anything is left over behind the size.
    """
    text = text.strip(WHITESPACE)
    if text == "max":
        return NO_LIMIT
    value, rest = memparse(text)
    if rest:
        raise os_error(errno.EINVAL, f"{text!r} is not a limit: write bytes such as 64M, or max")
    return min(value - value % PAGE_SIZE, NO_LIMIT)


def _kstrtoull(text: str, start: int, whole: str) -> int:
    """Read all of ``text[start:]``, one newline allowed at its end.  Overflow is told before left-over text."""
    value, position = parse_integer(text, start)
    if value > _U64:
        raise os_error(errno.ERANGE, f"{whole!r} does not fit into 64 bits")
    if position == _radix(text, start)[1] or text[position:] not in ("", "\n"):
        raise os_error(errno.EINVAL, f"{whole!r} is not an integer")
    return value


def kstrtouint(text: str) -> int:
    """Read an unsigned 32-bit integer in base 0, as lib/kstrtox.c does: a "+" and one final newline are allowed.

    Raises
    ------
    OSError
        EINVAL for text that is no such number, ERANGE for one above 2**32 - 1.
    """
    value = _kstrtoull(text, text.startswith("+"), text)
    if value > _UINT_MAX:
        raise os_error(errno.ERANGE, f"{text!r} is above {_UINT_MAX}")
    return value


def kstrtoint(text: str) -> int:
    """Read a signed 32-bit integer in base 0, as lib/kstrtox.c does: one sign and one final newline are allowed.

    Raises
    ------
    OSError
        EINVAL for text that is no such number, ERANGE for one that does not fit.
    """
    negative = text.startswith("-")
    value = _kstrtoull(text, negative or text.startswith("+"), text)
    if value > _INT_MAX + negative:
        raise os_error(errno.ERANGE, f"{text!r} does not fit into a signed 32-bit integer")
    return -value if negative else value


def kstrtobool(text: str) -> bool:
    """Read a boolean as lib/kstrtox.c does: y t e 1 on, or n f d 0 off; only the letters that decide are looked at.

    Raises
    ------
    OSError
        EINVAL for anything else.
    """
    first, second = text[:1].lower(), text[1:2].lower()
    if first in ("y", "t", "e", "1") or (first == "o" and second == "n"):
        return True
    if first in ("n", "f", "d", "0") or (first == "o" and second == "f"):
        return False
    raise os_error(errno.EINVAL, f"{text!r} is not a boolean: write Y or N")


def parse_size(size: str | SupportsIndex) -> int:
    """Read a size given to the Python API; return bytes.

    Parameters
    ----------
    size
        Bytes as an integer, or text such as "8G" or "512M": a number in base 0 with at most one of K M G T P E.

    Raises
    ------
    InvalidArgumentError
        When it is negative, above 2**62, or not a size.  It is a ValueError as well as an OSError (EINVAL).
    TypeError
        When it is neither text nor an integer.

    >>> parse_size("8G")
    8589934592
    """
    if isinstance(size, str):
        text = size.strip(WHITESPACE)
        value, position = _with_suffix(text)
        if position < len(text) or not text[:1].isdigit():
            raise InvalidArgumentError(f"{size!r} is not a size: give bytes, or a number with one of K M G T P E")
    else:
        value = operator.index(size)
        if value < 0:
            raise InvalidArgumentError(f"a size cannot be negative: {value}")
    if value > NO_LIMIT:
        raise InvalidArgumentError(f"{size!r} is above the largest size, {NO_LIMIT} bytes")
    return value


def is_path(path: str | bytes) -> bool:
    """Whether the system could take it for a path: without a NUL, and without characters that stand for no bytes."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def format_size(nbytes: int, *, raw: bool = False) -> str:
    """Write bytes for people, or with ``raw`` as the bare number.

    >>> format_size(10 << 20), format_size(1536), format_size(1536, raw=True)
    ('10.0 MiB', '1.5 KiB', '1536')
    """
    if raw:
        return str(nbytes)
    if abs(nbytes) < 1024:
        return f"{nbytes} B"
    value = nbytes / 1024
    for suffix in _SUFFIXES:
        if abs(value) < 1023.95 or suffix == _SUFFIXES[-1]:  # 1023.95 would be shown as 1024.0
            break
        value /= 1024
    return f"{value:.1f} {suffix}iB"

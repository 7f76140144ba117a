"""The module parameters: what ``/sys/module/zswap/parameters`` has, and two of our own (SPEC 3.3, 3.5, 7.4)."""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import COLDEST, IN_TURN, LZ4, NOTHING, ZSTD
from uzswap.errors import InvalidArgumentError, os_error
from uzswap.units import PAGE_SIZE, WHITESPACE, kstrtobool, kstrtouint, parse_size

if TYPE_CHECKING:
    from uzswap.reclaim.state import ReclaimState
    from uzswap.reclaim.walks import Walk

__all__ = ["Compressor", "Parameters", "PoolLimit", "total_ram_pages"]

#: mm/zswap.c
_MAX_POOL_PERCENT: Final = 20
_ACCEPT_THRESHOLD_PERCENT: Final = 90

#: of a module parameter, which is an unsigned int
_UINT_MAX: Final = (1 << 32) - 1

_CODECS: Final = {"lz4": LZ4, "zstd": ZSTD}
#: What a plain name means: LZ4_compress_default()'s acceleration, and ZSTD_CLEVEL_DEFAULT.
_DEFAULT_LEVELS: Final = {"lz4": 1, "zstd": 3}
#: LZ4_ACCELERATION_MAX in lz4.c; ZSTD_maxCLevel() (zstd's negative levels are what lz4 does better)
_LEVELS: Final = {"lz4": range(1, 65538), "zstd": range(1, 23)}


def total_ram_pages() -> int:
    """Return the RAM of the machine in pages of 4096 bytes: the kernel's totalram_pages()."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // PAGE_SIZE


@dataclass(frozen=True, slots=True)
class PoolLimit:
    """How large the pool may be: a share of the machine's RAM, or a fixed size.

    The percentages are not range-checked, as in the kernel: 0 and values above 100 are used as they are.

    >>> PoolLimit(percent=20, accept=90).pages(1_048_576)
    (209715, 188743)
    """

    percent: int = _MAX_POOL_PERCENT
    accept: int = _ACCEPT_THRESHOLD_PERCENT
    #: pages; overrides percent
    fixed: int | None = None

    def pages(self, total: int) -> tuple[int, int]:
        """Return (maximum, accept threshold) in pages on a machine with ``total``: at the first the pool is full, at or
        below the second it accepts again."""
        maximum = total * self.percent // 100 if self.fixed is None else self.fixed
        return maximum, maximum * self.accept // 100


@dataclass(frozen=True, slots=True)
class Compressor:
    """A compressor and its level: ``lz4``, ``lz4:ACCELERATION``, ``zstd`` or ``zstd:LEVEL``."""

    name: str
    level: int

    @classmethod
    def parse(cls, text: str) -> Compressor:
        """Read a compressor's name.

        Raises
        ------
        FileNotFoundError
            There is no such compressor or level.

        >>> str(Compressor.parse("zstd:7")), str(Compressor.parse("zstd:3"))
        ('zstd:7', 'zstd')
        """
        if not isinstance(text, str):
            raise TypeError(f"a compressor is text such as 'zstd:7', not {type(text).__name__}")
        name, colon, level = text.partition(":")
        if name not in _CODECS:
            raise os_error(errno.ENOENT, f"there is no compressor {text!r}: there are {', '.join(_CODECS)}")
        if not colon:
            return cls(name, _DEFAULT_LEVELS[name])
        levels = _LEVELS[name]
        if not (level.isascii() and level.isdigit()) or int(level) not in levels:
            raise os_error(errno.ENOENT, f"{name} has no level {level!r}: there are {levels[0]} to {levels[-1]}")
        return cls(name, int(level))

    @property
    def codec(self) -> int:
        return _CODECS[self.name]

    def __str__(self) -> str:
        return self.name if self.level == _DEFAULT_LEVELS[self.name] else f"{self.name}:{self.level}"


class Parameters:
    """The parameters of one engine, by name; reading and writing is text, as in the files.

    Every write changes the parameter wholly or, with an error, not at all.  May be called from any thread.
    """

    def __init__(
        self, state: ReclaimState, walks: Mapping[str, Walk], limit: PoolLimit, compressor: Compressor, walk: str
    ) -> None:
        self._state = state
        self._walks = walks
        self._ram = total_ram_pages()
        self._limit = limit
        self._compressor = compressor
        self.enabled = True
        self._same_filled_pages_enabled = True
        self._apply_limit(limit)
        self._use_compressor(compressor)
        self._use_walk(walk)

    # As files

    def names(self) -> tuple[str, ...]:
        return tuple(_TABLE)

    def get(self, name: str) -> str:
        """Return the text of a parameter, without a newline.

        Raises
        ------
        FileNotFoundError
            There is no such parameter.
        """
        return self._row(name)[0](self)

    def set(self, name: str, text: str | int) -> None:
        """Change a parameter; an integer is written in decimal digits.

        Raises
        ------
        OSError
            ENOENT no such parameter, compressor or walk; EINVAL or ERANGE text that is no value of it; EBUSY too many
            old compressors still have entries.
        """
        if not isinstance(text, str):
            text = str(operator.index(text))
        self._row(name)[1](self, text)

    def _row(self, name: str) -> tuple[Callable[[Parameters], str], Callable[[Parameters, str], None]]:
        row = _TABLE.get(name) if isinstance(name, str) else None
        if row is None:
            raise os_error(errno.ENOENT, f"there is no parameter {name!r}: there are {', '.join(_TABLE)}")
        return row

    # The pool's limit

    @property
    def pool_limit(self) -> tuple[int, int]:
        """(maximum, accept threshold) in pages."""
        return self._limit.pages(self._ram)

    def _apply_limit(self, limit: PoolLimit) -> None:
        maximum, accept = limit.pages(self._ram)
        self._state.core.set_pool_limit(maximum, accept)
        self._state.accept_pages = accept
        self._limit = limit

    def _max_pool_percent(self) -> int:
        if self._limit.fixed is None:
            return self._limit.percent
        return self._limit.fixed * 100 // self._ram

    def _set_max_pool_percent(self, text: str) -> None:
        self._apply_limit(PoolLimit(kstrtouint(text), self._limit.accept))

    def _set_accept_threshold_percent(self, text: str) -> None:
        self._apply_limit(PoolLimit(self._limit.percent, kstrtouint(text), self._limit.fixed))

    # Switches and choices

    def _set_enabled(self, text: str) -> None:
        enabled = kstrtobool(text)
        self._state.core.set_enabled(enabled)
        self.enabled = enabled

    @property
    def shrinker_enabled(self) -> bool:
        return self._state.shrinker_enabled

    def _set_shrinker_enabled(self, text: str) -> None:
        self._state.shrinker_enabled = kstrtobool(text)
        self._tell_faults()

    def _set_same_filled_pages_enabled(self, text: str) -> None:
        as_value = kstrtobool(text)
        self._state.core.set_same_filled(as_value)
        self._same_filled_pages_enabled = as_value

    def _set_compressor(self, text: str) -> None:
        self._use_compressor(Compressor.parse(text.strip(WHITESPACE)))

    def _use_compressor(self, compressor: Compressor) -> None:
        if self._state.core.set_compressor(compressor.codec, compressor.level):
            raise _too_many(compressor)
        self._compressor = compressor

    def hold_codec(self, compressor: Compressor, filter: int = 0) -> int:
        """Return a slot of the data plane to store with, which is the caller's until ``core.codec_put(slot)``.

        Raises
        ------
        OSError
            EBUSY: too many other compressors, or dictionaries of stores, still have entries.
        """
        slot = self._state.core.codec_get(compressor.codec, compressor.level, filter)
        if slot < 0:
            raise _too_many(compressor)
        return slot

    def _set_walk(self, text: str) -> None:
        self._use_walk(text.strip(WHITESPACE))

    def _use_walk(self, name: str) -> None:
        if name not in self._walks:
            raise os_error(errno.ENOENT, f"there is no walk {name!r}: there are {', '.join(self._walks)}")
        self._state.walk = name
        self._tell_faults()

    def _tell_faults(self) -> None:
        """Faults on arrays make room without Python, and have to do it as the walk in use does."""
        self._state.core.set_fault_writeback(
            NOTHING
            if not self._state.writes_back_for_charges
            else COLDEST
            if self._state.walk == "coldest"
            else IN_TURN
        )


def _too_many(compressor: Compressor) -> OSError:
    return os_error(
        errno.EBUSY,
        f"{compressor} must wait: entries of too many other compressors are still stored, load or free some",
    )


def _yes_no(value: bool) -> str:
    return "Y" if value else "N"


#: name -> (read, write)
_TABLE: Final[dict[str, tuple[Callable[[Parameters], str], Callable[[Parameters, str], None]]]] = {
    "accept_threshold_percent": (lambda p: str(p._limit.accept), Parameters._set_accept_threshold_percent),
    "compressor": (lambda p: str(p._compressor), Parameters._set_compressor),
    "enabled": (lambda p: _yes_no(p.enabled), Parameters._set_enabled),
    "max_pool_percent": (lambda p: str(p._max_pool_percent()), Parameters._set_max_pool_percent),
    "same_filled_pages_enabled": (
        lambda p: _yes_no(p._same_filled_pages_enabled),
        Parameters._set_same_filled_pages_enabled,
    ),
    "shrinker_enabled": (lambda p: _yes_no(p.shrinker_enabled), Parameters._set_shrinker_enabled),
    "uzswap.walk": (lambda p: p._state.walk, Parameters._set_walk),
}


def parse_max_pool(max_pool: str | int | None, accept_threshold_percent: int) -> PoolLimit:
    """Read the ``max_pool`` argument: None for the kernel's 20 % of RAM, "20%", or a size such as "512M".

    Raises
    ------
    InvalidArgumentError
        It is none of these, or the accept threshold is negative.
    """
    if not 0 <= operator.index(accept_threshold_percent) <= _UINT_MAX:
        raise InvalidArgumentError(f"accept_threshold_percent={accept_threshold_percent} must be 0 to {_UINT_MAX}")
    if max_pool is None:
        return PoolLimit(accept=accept_threshold_percent)
    if isinstance(max_pool, str) and max_pool.strip().endswith("%"):
        number = max_pool.strip()[:-1].strip()
        if not (number.isascii() and number.isdigit()):
            raise InvalidArgumentError(f"max_pool={max_pool!r} is not a percentage: give a whole number such as 20%")
        return PoolLimit(int(number), accept_threshold_percent)
    return PoolLimit(accept=accept_threshold_percent, fixed=parse_size(max_pool) // PAGE_SIZE)

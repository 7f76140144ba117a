"""Settings with units: dataclasses whose fields say what text they take.

    @dataclass(frozen=True, slots=True)
    class Senpai:
        interval: float = setting(6.0, "seconds", "from one probe to the next")

A value comes from TOML (numbers, text, booleans) or from a command line (text).
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

from uzswap.errors import InvalidArgumentError
from uzswap.units import parse_size

__all__ = ["Unit", "help_of", "parse_duration", "read_value", "replaced", "setting"]

Unit = Literal["bytes", "seconds", "percent", "number", "count", "flag", "text", "list"]
T = TypeVar("T")

_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?")
_LARGEST: Final = 1e9  # seconds: some thirty years


def setting(default: T, unit: Unit, text: str) -> T:
    """Return a dataclass field with a unit and a help text."""
    made: T = dataclasses.field(default=default, metadata={"unit": unit, "help": text})
    return made


def parse_duration(value: object) -> float:
    """Read a duration; return seconds.

    Raises
    ------
    InvalidArgumentError
        It is none.

    >>> parse_duration("2m"), parse_duration(1.5), parse_duration("1d")
    (120.0, 1.5, 86400.0)
    """
    seconds = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = float(found[1]) * _SECONDS[found[2] or "s"]
    if not 0 <= seconds <= _LARGEST:
        raise InvalidArgumentError(f"{value!r} is no duration: give seconds, or a number with ms, s, m, h or d")
    return seconds


def _number(value: object) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if 0 <= number < float("inf"):
            return number
    raise InvalidArgumentError(f"{value!r} is no number from 0 on")


def _percent(value: object) -> float:
    return _number(value.strip().removesuffix("%") if isinstance(value, str) else value)


def _count(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise InvalidArgumentError(f"{value!r} is no whole number")
    return int(number)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if found is None:
        raise InvalidArgumentError(f"{value!r} is neither true nor false")
    return found


def _bytes(value: object) -> int:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return parse_size(value)
    raise InvalidArgumentError(f"{value!r} is not a size: give bytes, or a number with one of K M G T P E")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise InvalidArgumentError(f"{value!r} is no text")


def _list(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise InvalidArgumentError(f"{value!r} is no list of texts")


_READERS: Final = {
    "bytes": _bytes,
    "seconds": parse_duration,
    "percent": _percent,
    "number": _number,
    "count": _count,
    "flag": _flag,
    "text": _text,
    "list": _list,
}


def read_value(unit: str, value: object) -> Any:
    """Return a value of a unit, read from what TOML or a command line has.

    Raises
    ------
    InvalidArgumentError
        It is none of that unit.
    """
    return _READERS[unit](value)


def replaced(settings: T, given: Mapping[str, object]) -> T:
    """Return settings, with some of them given anew.

    Raises
    ------
    InvalidArgumentError
        There is no such setting, or the value is none of its unit; ``.strerror`` begins with the name.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    values = {}
    for name, value in given.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
            raise InvalidArgumentError(f"{name} is no setting here: {hint}")
        metadata = fields[name].metadata
        try:
            values[name] = read_value(metadata["unit"], value)
        except OSError as error:
            raise InvalidArgumentError(f"{name}: {error.strerror}; it is: {metadata['help']}") from error
    return dataclasses.replace(settings, **values)  # type: ignore[type-var]


def help_of(settings: type) -> list[tuple[str, Unit, object, str]]:
    """Return (name, unit, default, help) of all settings of a dataclass."""
    return [
        (field.name, field.metadata["unit"], field.default, field.metadata["help"])
        for field in dataclasses.fields(settings)
    ]

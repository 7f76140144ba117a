"""Which cgroup has which policy, with which settings: a TOML file in layers, default, then globs, then single cgroups.

    [agent]
    watch = ["/user.slice/**"]          # whom to look after; without it, the children of the root
    ignore = ["/user.slice/*/init.scope"]
    swapout_day = "4G"

    [default]
    policy = "twostage"
    twostage.age_min = "5m"

    [glob."/user.slice/sandbox-*"]
    policy = "idle"

    [cgroup."/user.slice/database"]
    enabled = false

A later layer wins, setting by setting; of several globs the one that is further down.
"""

from __future__ import annotations

import difflib
import errno
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from uzswap.agent.policies import DEFAULT, POLICIES
from uzswap.agent.settings import replaced, setting
from uzswap.agent.tree import glob
from uzswap.errors import InvalidArgumentError, os_error

__all__ = ["AgentSettings", "Choice", "Config"]

_QUIET: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What is the same for all cgroups."""

    watch: tuple[str, ...] = setting(("/*",), "list", "globs of the cgroups to look after")
    ignore: tuple[str, ...] = setting((), "list", "globs of cgroups to leave alone, whoever watches them")
    deadline: float = setting(10.0, "seconds", "until a request is interrupted, and its cgroup rests")
    at_once: int = setting(8, "count", "requests under way at a time; one that is overdue does not count")
    # oomd's swapout_bps_threshold; ChromeOS's and mmd's bytes a day
    swapout_rate: int = setting(1 << 20, "bytes", "a second that may be written to the device, in the long run")
    swapout_day: int = setting(1 << 30, "bytes", "in 24 hours that may be written to the device")
    quiet_hours: str = setting("", "text", "HH:MM-HH:MM, local time, in which nothing is written to the device")
    rest_max: float = setting(600.0, "seconds", "longest rest of a cgroup of which nothing could be had")
    record_rows: int = setting(100_000, "count", "decisions that are remembered")
    record_bytes: int = setting(64 << 20, "bytes", "that the file of decisions may have")


@dataclass(frozen=True, slots=True)
class Choice:
    """What one cgroup has."""

    enabled: bool = setting(True, "flag", "whether it is looked after")
    policy: str = setting(DEFAULT, "text", f"one of {', '.join(POLICIES)}")


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration.  Immutable."""

    agent: AgentSettings = field(default_factory=AgentSettings)
    #: (glob or None for everybody, settings as they were given)
    layers: tuple[tuple[str | None, Mapping[str, Any]], ...] = ()
    #: cgroups that have settings of their own
    single: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: for everybody, over all of that: of a command line
    last: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str) -> Config:
        """Read a file.

        Raises
        ------
        OSError
            It cannot be read.
        InvalidArgumentError
            Something in it is wrong; the text says where and what would be right.
        """
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise os_error(error.errno or errno.EIO, f"cannot be read: {error.strerror}", path) from error
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(f"{path} is no TOML: {error}") from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, name: str = "configuration") -> Config:
        """Read the text of a file; ``name`` is for errors."""
        try:
            told = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgumentError(f"{name} is no TOML: {error}") from error

        def wrong(where: str, key: str, error: InvalidArgumentError) -> InvalidArgumentError:
            line = _line_of(text, where, key)
            return InvalidArgumentError(f"{name}{f', line {line}' if line else ''}, [{where}]: {error.strerror}")

        for key in told:
            if key not in _TABLES:
                unknown = InvalidArgumentError(f"{key} is no table here: {_known(key, _TABLES)}")
                raise wrong(key, key, unknown)
            if not isinstance(told[key], dict):
                raise wrong(key, key, InvalidArgumentError(f"{key} has to be a table: write [{key}]"))
        try:
            agent = replaced(AgentSettings(), told.get("agent", {}))
            if agent.quiet_hours:
                _quiet(agent.quiet_hours)
        except InvalidArgumentError as error:
            raise wrong("agent", _first_word(error), error) from error
        layers: list[tuple[str | None, Mapping[str, Any]]] = []
        single: dict[str, Mapping[str, Any]] = {}
        if "default" in told:
            layers.append((None, told["default"]))
        for kind in ("glob", "cgroup"):
            for pattern, table in told.get(kind, {}).items():
                where = f'{kind}."{pattern}"'
                if not isinstance(table, dict):
                    raise wrong(where, pattern, InvalidArgumentError(f'write [{kind}."/path"]'))
                if not pattern.startswith("/"):
                    raise wrong(where, pattern, InvalidArgumentError(f"{pattern!r} has to begin with a slash"))
                if kind == "glob":
                    layers.append((pattern, table))
                else:
                    single[pattern.rstrip("/") or "/"] = table
        for where, table in _all(layers, single):
            try:
                _check(table)
            except InvalidArgumentError as error:
                raise wrong(where, _first_word(error), error) from error
        return cls(agent, tuple(layers), single)

    def of(self, path: str) -> tuple[Choice, Any]:
        """Return the choice and the policy's settings of a cgroup."""
        tables = [table for pattern, table in self.layers if pattern is None or glob(pattern).fullmatch(path)]
        if path in self.single:
            tables.append(self.single[path])
        tables.append(self.last)
        choice = Choice()
        for table in tables:
            choice = replaced(choice, {key: value for key, value in table.items() if key not in POLICIES})
        settings = POLICIES[choice.policy].Settings()
        for table in tables:
            settings = replaced(settings, table.get(choice.policy, {}))
        return choice, settings

    def ignores(self, path: str) -> bool:
        """Whether a cgroup is to be left alone, whatever else is said of it."""
        return any(glob(pattern).fullmatch(path) for pattern in self.agent.ignore)

    def with_default(self, given: Mapping[str, object]) -> Config:
        """Return it with a last layer for everybody; keys may be ``policy.setting``, or ``agent.setting``.

        Raises
        ------
        InvalidArgumentError
            Something given is wrong.
        """
        table: dict[str, Any] = {}
        agent: dict[str, object] = {}
        for key, value in given.items():
            first, dot, name = key.partition(".")
            if first == "agent" and dot:
                agent[name] = value
            elif dot:
                table.setdefault(first, {})[name] = value
            else:
                table[key] = value
        _check(table)
        settings = replaced(self.agent, agent)
        if settings.quiet_hours:
            _quiet(settings.quiet_hours)
        return replace(self, agent=settings, last=table)

    def is_quiet(self, minute: int) -> bool:
        """Whether a minute of the local day is one in which nothing is written."""
        if not self.agent.quiet_hours:
            return False
        begin, end = _quiet(self.agent.quiet_hours)
        return begin <= minute < end if begin <= end else minute >= begin or minute < end


_TABLES: Final = ("agent", "default", "glob", "cgroup")


def _all(
    layers: list[tuple[str | None, Mapping[str, Any]]], single: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for pattern, table in layers:
        yield "default" if pattern is None else f'glob."{pattern}"', table
    for path, table in single.items():
        yield f'cgroup."{path}"', table


def _check(table: Mapping[str, Any]) -> None:
    choice = replaced(Choice(), {key: value for key, value in table.items() if not isinstance(value, dict)})
    if choice.policy not in POLICIES:
        raise InvalidArgumentError(f"policy: there is no {choice.policy!r}: {_known(choice.policy, POLICIES)}")
    for key, value in table.items():
        if isinstance(value, dict):
            if key not in POLICIES:
                raise InvalidArgumentError(f"{key} is no policy: {_known(key, POLICIES)}")
            try:
                replaced(POLICIES[key].Settings(), value)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{_first_word(error)}: of {key}: {error.strerror}") from error


def _known(wrong: str, names: Iterable[str]) -> str:
    names = list(names)
    close = difflib.get_close_matches(wrong, names, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _quiet(text: str) -> tuple[int, int]:
    found = _QUIET.fullmatch(text)
    if found is None:
        raise InvalidArgumentError(f"quiet_hours: {text!r} is not HH:MM-HH:MM, such as 22:00-06:00")
    hours = [int(part) for part in found.groups()]
    return hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]


def _first_word(error: InvalidArgumentError) -> str:
    return re.split(r"[:\s]", error.strerror or "", maxsplit=1)[0]


def _line_of(text: str, where: str, key: str) -> int | None:
    """Return the line that a key of a table is in, as far as looking for it tells."""
    table = ""
    fallback = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[(.*)\]\s*(?:#.*)?$", line):
            table = header[1].strip()
            if table == where or table.startswith(f"{where}."):
                fallback = fallback or number
        if (table == where or table.startswith(f"{where}.")) and re.match(
            rf'\s*(?:[\w"]+\.)?"?{re.escape(key)}\b', line
        ):
            return number
        if not table and re.match(rf"\s*{re.escape(key)}\b", line):
            return number
    return fallback

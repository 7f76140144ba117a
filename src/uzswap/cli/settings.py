"""What ``uzswap run`` is told: by a TOML file, by ``UZSWAP_*`` environment variables, which win, and by options, which
win again.

A setting has the same name in all: ``swap_size = "8G"`` is ``UZSWAP_SWAP_SIZE=8G`` and ``--swap-size 8G``.  Control
files are settings, too: ``"memory.high" = "1G"`` is ``UZSWAP_MEMORY_HIGH=1G`` and ``--memory-high 1G``, for the cgroup
of the program, and ``"zswap/parameters/enabled"`` is ``UZSWAP_ZSWAP_PARAMETERS_ENABLED``.
"""

from __future__ import annotations

import difflib
import errno
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from uzswap.errors import InvalidArgumentError, os_error
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES
from uzswap.units import kstrtobool, parse_size

__all__ = ["CONFIG", "NAMES", "SETTINGS", "Settings", "option_of", "variable_of"]

#: names the TOML file
CONFIG: Final = "UZSWAP_CONFIG"
_PREFIX: Final = "UZSWAP_"
#: of other commands, and of uzswap.locks
_NOT_OURS: Final = frozenset({CONFIG, "UZSWAP_CHECK_LOCKS", "UZSWAP_ENGINE"})

Value = str | int | bool


def _text(value: Value) -> str:
    if isinstance(value, bool) or not str(value).strip():
        raise ValueError("text is wanted")
    return str(value)


def _count(value: Value) -> int:
    if isinstance(value, bool):
        raise ValueError("a whole number is wanted")
    return int(value)


def _yes(value: Value) -> bool:
    return value if isinstance(value, bool) else kstrtobool(str(value))


def _size(value: Value) -> str:
    parse_size(value)
    return str(value)


def _place(value: Value) -> bool | str:
    """A path, or whether there is to be one at all."""
    if isinstance(value, bool):
        return value
    return str(value) if "/" in str(value) else kstrtobool(str(value))


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings."""

    help: str
    read: Callable[[Value], Any]
    default: str = ""
    #: it is an argument of Zswap
    engine: bool = False


#: all there are, apart from control files
SETTINGS: Final = {
    "swap": Setting("swap file or device; auto is a file without a name, none is no device", _text, "auto", True),
    "swap_size": Setting("most that it may hold", _size, "8G", True),
    "max_pool": Setting("most memory of the pool: a share of the RAM, or a size", _text, "20%", True),
    "accept_threshold_percent": Setting("a full pool accepts again at this share of its limit", _count, "90", True),
    "compressor": Setting("lz4 or zstd, with :LEVEL if wanted", _text, "lz4", True),
    "walk": Setting("how entries are chosen for writeback: fair, coldest or v5", _text, "fair", True),
    "nodes": Setting("NUMA nodes to keep LRUs for", _count, "1", True),
    "paranoid": Setting("whether what is in the pool is checked, too, when it is loaded", _yes, "no", True),
    "encrypt": Setting("whether what is on the device is encrypted", _yes, "yes, if it has a name", True),
    "faults": Setting("who serves a fault on an array: thread, or signal (a handler of SIGBUS)", _text, "thread", True),
    "cgroup": Setting("who is charged for the program's arrays", _text, "/program"),
    "managed": Setting("whether numpy's arrays are the engine's", _yes, "yes"),
    "min_bytes": Setting("from this size on", _size, "1M"),
    "socket": Setting("whether a socket is served, or its path", _place, "yes, where uzswap finds it"),
    "mount": Setting("whether to mount, or where", _place, "in the runtime directory, if FUSE works here"),
    "metrics_port": Setting("Prometheus metrics on this port of localhost", _count, "none"),
}


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return _PREFIX + re.sub(r"[./]", "_", name.removeprefix("uzswap.")).upper()


def option_of(name: str) -> str:
    """Return the option of a setting.

    >>> option_of("memory.max"), option_of("uzswap.resident.max"), option_of("swap_size")
    ('--memory-max', '--resident-max', '--swap-size')
    """
    return "--" + re.sub(r"[./_]", "-", name.removeprefix("uzswap."))


#: of the program's cgroup
_CGROUP_FILES: Final = tuple(
    name for name, row in FILES.items() if row.writable and row.reader is not None and not row.writes_per_open
)
_ENGINE_FILES: Final = tuple(path for path, row in ENGINE_FILES.items() if row.writable)
#: all of them
NAMES: Final = (*SETTINGS, *_CGROUP_FILES, *_ENGINE_FILES)
_BY_VARIABLE: Final = {variable_of(name): name for name in NAMES}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one program."""

    #: arguments of Zswap
    engine: Mapping[str, Any] = field(default_factory=dict)
    cgroup: str = "/program"
    managed: bool = True
    min_bytes: str = "1M"
    socket: bool | str = True
    #: None: if FUSE works here
    mount: bool | str | None = None
    metrics_port: int | None = None
    #: what to write into which control files of the cgroup first
    files: Mapping[str, str] = field(default_factory=dict)
    #: and of the engine, by their paths
    engine_files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Read the file that ``UZSWAP_CONFIG`` names, if it does, and the other variables.

        Raises
        ------
        InvalidArgumentError
            Something is no setting, or a value does not fit it.
        OSError
            The file cannot be read.
        """
        given: dict[str, tuple[str, Value]] = {}
        if path := environment.get(CONFIG):
            given |= {name: (f"{path}: {name}", value) for name, value in _read_file(path).items()}
        for variable, value in environment.items():
            if variable.startswith(_PREFIX) and variable not in _NOT_OURS:
                name = _BY_VARIABLE.get(variable)
                if name is None:
                    raise InvalidArgumentError(f"{variable} is no setting: {_known(variable, _BY_VARIABLE)}")
                given[name] = (variable, value)
        return cls._make(given)

    @classmethod
    def _make(cls, given: Mapping[str, tuple[str, Value]]) -> Settings:
        engine: dict[str, Any] = {}
        others: dict[str, Any] = {}
        files: dict[str, str] = {}
        engine_files: dict[str, str] = {}
        for name, (where, value) in given.items():
            if name not in SETTINGS:
                text = str(int(value) if isinstance(value, bool) else value)
                (engine_files if name in _ENGINE_FILES else files)[name] = text
                continue
            setting = SETTINGS[name]
            try:
                (engine if setting.engine else others)[name] = setting.read(value)
            except (ValueError, TypeError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise InvalidArgumentError(f"{where} = {value!r}: {reason}; it is: {setting.help}") from error
        if engine.get("swap") == "none":
            engine["swap"] = None
        cgroup = others.setdefault("cgroup", "/program")
        if not cgroup.startswith("/"):
            raise InvalidArgumentError(f"cgroup = {cgroup!r} has to begin with a slash, such as /program")
        return cls(engine=engine, files=files, engine_files=engine_files, **others)


def _read_file(path: str) -> dict[str, Value]:
    try:
        with open(path, "rb") as file:
            told = tomllib.load(file)
    except OSError as error:
        raise os_error(error.errno or errno.EIO, f"the settings cannot be read: {error.strerror}", path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path} is no TOML: {error}") from error
    for name, value in told.items():
        if name not in NAMES:
            raise InvalidArgumentError(f"{path}: {name} is no setting: {_known(name, NAMES)}")
        if not isinstance(value, str | int):
            raise InvalidArgumentError(f"{path}: {name} = {value!r}: text, a whole number, true or false is wanted")
    return told


def _known(wrong: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong, names, 1)
    return f"did you mean {close[0]}?" if close else "uzswap run --help lists them"

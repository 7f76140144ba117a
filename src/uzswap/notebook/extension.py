"""What ``%load_ext uzswap`` does to an IPython shell, and ``%unload_ext`` undoes."""

from __future__ import annotations

import ctypes
import errno
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from IPython.core.error import UsageError

from uzswap import ReclaimError, Zswap, default_engine, managed, set_default_engine
from uzswap.agent.settings import parse_duration
from uzswap.errors import InvalidArgumentError
from uzswap.notebook.idle import Idle, Stage
from uzswap.notebook.report import Report
from uzswap.units import format_size

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Notebook", "load", "unload"]

#: where arrays of a notebook are charged
CGROUP: Final = "/notebook"


def _engine() -> tuple[Zswap, bool]:
    """Return the engine of this process, and whether it was just made."""
    try:
        return default_engine(), False
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return Zswap(), True


class Notebook:
    """uzswap in one shell.

    Attributes
    ----------
    zswap, cgroup
        The engine of the process, and who is charged for arrays.
    idle : Idle
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self.zswap, made = _engine()
        self.cgroup = self.zswap.cgroup(CGROUP)
        self._managed = managed(self.cgroup)
        self.idle = Idle(self._give_back)
        try:
            self._managed.start()
            self.idle.start()
        except BaseException:
            self._managed.stop()
            if made:
                self.zswap.close()
            raise
        if made:
            set_default_engine(self.zswap)
            # Until the process ends: arrays in variables outlive whatever the interpreter takes down before.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.zswap))
        shell.events.register("pre_run_cell", self._before)
        shell.events.register("post_run_cell", self._after)
        shell.register_magic_function(self.magic, "line", "uzswap")  # type: ignore[arg-type]

    def close(self) -> None:
        """Undo all but the engine: arrays stay where they are."""
        self._shell.events.unregister("pre_run_cell", self._before)
        self._shell.events.unregister("post_run_cell", self._after)
        self._shell.magics_manager.magics["line"].pop("uzswap", None)
        self.idle.close()
        self._managed.stop()

    @property
    def min_bytes(self) -> int:
        """Arrays of fewer bytes are plain memory."""
        return self._managed.min_bytes

    # Cells

    def _before(self, info: object) -> None:
        self.idle.cell_begins()
        # The handler of numpy belongs to the context, and kernels run each cell in one of its own.
        self._managed.begin_thread()

    def _after(self, result: object) -> None:
        self.idle.cell_ends()

    def _give_back(self, stage: Stage, cancelled: Callable[[], bool]) -> None:
        root = self.zswap.root
        try:
            if stage is Stage.ZSWAP:
                root.reclaim(root.stats()["anon"], cancel=cancelled)
            else:
                root.reclaim(root.stats()["zswap"], source="zswap", cancel=cancelled)
        except ReclaimError:
            pass  # as much as could go: the rest is held, or the disk is full
        except OSError as error:
            if self.zswap.closing:
                self.idle.close()
            elif error.errno != errno.EINVAL:  # that: there is no disk, or nothing may go there
                raise

    # The magic

    def magic(self, line: str) -> object:
        """Show where the bytes of this notebook's arrays and stores are, or change how they are treated.

        ::

            %uzswap                          a table of the variables
            %uzswap idle                     when an idle kernel gives its memory back
            %uzswap idle 10m | off           after so long without a cell to zswap, after twice that to the disk
            %uzswap memory.max 4G            write to a control file of the notebook's cgroup
            %uzswap memory.reclaim 1G        ... such as this one: to zswap, now
            %uzswap memory.stat              read one
        """
        name, _, rest = line.strip().partition(" ")
        try:
            if not name:
                return Report.of(self._shell.user_ns, self.zswap.root, self.told_of_idle())
            if name == "idle":
                if rest:
                    self.idle.after = None if rest.strip() == "off" else _seconds(rest.strip())
                return Said(self.told_of_idle())
            if rest:
                self.cgroup.write(name, rest)
                return None
            return Said(self.cgroup.read(name).rstrip("\n"))
        except OSError as error:
            raise UsageError(f"%uzswap {line.strip()}: {error.strerror}") from None

    def told_of_idle(self) -> str:
        after = self.idle.after
        if after is None:
            return "an idle kernel keeps its memory"
        return f"without a cell for {_time(after)} memory goes to zswap, for {_time(2 * after)} to the disk"


class Said(str):
    """Text that a cell shows as it is, and not as a literal."""

    def __repr__(self) -> str:
        return str(self)


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if not seconds:
        raise InvalidArgumentError("0 would take the memory of a kernel that is in use: give more, or off")
    return seconds


def _time(seconds: float) -> str:
    for unit, many in (("h", 3600), ("min", 60)):
        if seconds >= many and not seconds % many:
            return f"{seconds / many:g} {unit}"
    return f"{seconds:g} s"


_loaded: Final[weakref.WeakKeyDictionary[Any, Notebook]] = weakref.WeakKeyDictionary()


def load(shell: InteractiveShell) -> None:
    """What ``%load_ext uzswap`` calls.

    Raises
    ------
    OSError
        There can be no arrays here, with the reason and what to do; or no engine.  Nothing was changed.
    """
    if shell not in _loaded:
        notebook = _loaded[shell] = Notebook(shell)
        least = format_size(notebook.min_bytes)
        print(
            f"uzswap: arrays from {least} on are managed from the next cell on; {notebook.told_of_idle()}.  "
            "%uzswap shows where they are"
        )


def unload(shell: InteractiveShell) -> None:
    """What ``%unload_ext uzswap`` calls: new arrays are plain memory again, and those that there are stay managed."""
    notebook = _loaded.pop(shell, None)
    if notebook is not None:
        notebook.close()

"""Decisions in words."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

from uzswap.agent.policies.policy import MEMORY, RECOMPRESS, ZSWAP
from uzswap.agent.records import Record
from uzswap.units import format_size

__all__ = ["GATES", "explain"]

#: gate -> why, with the inputs of the decision
GATES: Final[dict[str, str]] = {
    "open": "nothing speaks against it",
    "idle": "it has been idle for {quiet:s}",
    "awake": "it is awake: {cpu:p} of a CPU, {faults:n} faults since the last look",
    "memory pressure": "memory pressure is above what it may be: it gave memory up too fast already",
    "io pressure": "IO pressure is above what it may be",
    "refaults": "pages that came back cost {lost:p} of its time",
    "disk refaults": "pages from the device cost {lost:p} of its time; {came_back:r} of what was written",
    "floor": "it is at its floor of {floor:b}, or has nothing that can go",
    "small": "it is less than a page, which is kept for the next round",
    "not worth it": "it is too little of this machine's memory to be worth a request yet",
    "young": "nothing has been in zswap for {age:s} yet",
    "nothing compressed": "it has nothing in zswap",
    "warming up": "it has not been watched for long enough",
    "no ages": "this tree tells no ages of pages in memory, which the policy farmem needs: choose twostage or refault",
    "swap full": "swap is as good as full",
    "budget": "the write budget is used up",
    "quiet hours": "these are quiet hours, in which nothing is written",
    "writeback off": "its memory.zswap.writeback is 0",
    "no source": "memory.reclaim takes no source=zswap here",
    "no swap": "there is no swap to write to",
    "no reclaim": "it has no memory.reclaim",
    "resting": "it rests until its next turn: the last requests brought next to nothing",
    "busy": "its last request is still under way",
    "hung": "its last request was interrupted, and has not ended: it is left alone",
    "gone": "it is gone",
    "dry run": "this is a dry run",
}

_STAGES: Final = {MEMORY: "memory", ZSWAP: "writeback of zswap", RECOMPRESS: "compression again"}
_WORDS: Final = {
    0: "all of it",
    errno.EAGAIN: "no more could go just now",
    errno.EINTR: "it took too long and was interrupted",
    errno.ETIMEDOUT: "it did not even end when it was interrupted",
    errno.ENOENT: "the cgroup was removed",
    errno.ENODEV: "the cgroup was removed",
    errno.ENOSPC: "the device is full",
    errno.EINVAL: "the file did not take that",
    errno.EIO: "the device failed",
}


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "ever"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


_FORMATS: Final[dict[str, Callable[[float], str]]] = {
    "s": _duration,
    "p": lambda value: f"{value:.2f} %",
    "r": lambda value: f"{100 * value:.0f} %",
    "n": lambda value: f"{value:.0f}",
    "b": lambda value: format_size(int(value)),
}


class _Input:
    """A number as a text of GATES wants it."""

    def __init__(self, value: float | None) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        return "some" if self._value is None else _FORMATS[spec](self._value)


class _Inputs(dict[str, float]):
    def __missing__(self, key: str) -> _Input:
        return _Input(None)


def explain(record: Record) -> str:
    """Return one line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
    inputs = _Inputs({name: _Input(value) for name, value in record.inputs.items()})  # type: ignore[misc]
    gate = GATES.get(record.gate, record.gate).format_map(inputs)
    what = _STAGES[record.stage]
    if not record.asked:
        again = f" ({record.count} times until {time.strftime('%H:%M:%S', time.localtime(record.until))})"
        return f"{when}  {what}: nothing, for {gate}{again if record.count > 1 else ''}"
    if record.gate == "dry run":
        return f"{when}  {what}: would have asked for {format_size(record.asked)}"
    came = f"{format_size(record.done)} of {format_size(record.asked)} asked for"
    if record.errno:
        came += f", {_WORDS.get(record.errno, errno.errorcode.get(record.errno, str(record.errno)))}"
    facts = _facts(record.inputs)
    return f"{when}  {what}: {came}, in {record.seconds:.3f} s, for {gate}{f' ({facts})' if facts else ''}"


_FACTS: Final = {
    "open": ("gate open", "r"),
    "lost": ("time lost to refaults", "p"),
    "share": ("share", "r"),
    "age": ("older than", "s"),
    "came_back": ("came back", "r"),
    "budget": ("budget", "b"),
}


def _facts(inputs: dict[str, float]) -> str:
    found = [f"{text} {_FORMATS[kind](inputs[name])}" for name, (text, kind) in _FACTS.items() if name in inputs]
    return ", ".join(found)

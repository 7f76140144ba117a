"""How the command ends: exit codes, and errors as one line.

====  ==========================================================================================
0     done
1     an error of the system, or of what was asked about; something is missing or differs
2     bad arguments
75    EAGAIN (EX_TEMPFAIL of sysexits.h): less was done than asked, another try may do the rest
130   interrupted (128 + SIGINT)
141   nobody reads the output any more (128 + SIGPIPE); nothing is said
====  ==========================================================================================
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

__all__ = [
    "AGAIN",
    "BAD_ARGUMENTS",
    "BROKEN_PIPE",
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "Output",
    "describe",
    "exit_code",
    "printable",
]

DONE: Final = 0
FAILED: Final = 1
BAD_ARGUMENTS: Final = 2
AGAIN: Final = os.EX_TEMPFAIL
INTERRUPTED: Final = 128 + signal.SIGINT
BROKEN_PIPE: Final = 128 + signal.SIGPIPE


#: columns where nobody looks: what a program reads is never cut off
_WIDE: Final = 10_000


def printable(text: str, keep: str = "") -> str:
    """Return text with everything escaped that a terminal would not show, but act on: names and errors are anybody's.

    >>> printable("jobs/\\x1b[2J\\udcff"), printable("Käse\\n", keep="\\n")
    ('jobs/\\\\x1b[2J\\\\udcff', 'Käse\\n')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class Output(Console):
    """A terminal or file for tables.  Text is shown as it is: nothing in it is markup, or reaches the terminal as more
    than text."""

    def __init__(self, *, stderr: bool = False) -> None:
        to = sys.stderr if stderr else sys.stdout
        width = None if to.isatty() else _WIDE
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, keep="\n"), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        # rich would exit, with a code of its own.
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output")


def describe(error: OSError) -> str:
    """Return one line: which file, what is wrong, the errno.

    >>> describe(OSError(errno.ENOENT, "no such cgroup", "/a"))
    '/a: no such cgroup (ENOENT)'
    """
    text = error.strerror or str(error)
    told = error.filename is None or text.startswith(f"{error.filename}:")
    parts = [text] if told else [str(error.filename), text]
    number = f" ({errno.errorcode.get(error.errno, error.errno)})" if error.errno else ""
    return printable(" ".join(": ".join(parts).split())) + number


def exit_code(error: OSError) -> int:
    """Return the exit code that an error leads to."""
    return {errno.EAGAIN: AGAIN, errno.EINTR: INTERRUPTED}.get(error.errno or 0, FAILED)

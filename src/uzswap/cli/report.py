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
from typing import Final, NoReturn

from rich.console import Console

__all__ = ["AGAIN", "BAD_ARGUMENTS", "BROKEN_PIPE", "DONE", "FAILED", "INTERRUPTED", "Output", "describe", "exit_code"]

DONE: Final = 0
FAILED: Final = 1
BAD_ARGUMENTS: Final = 2
AGAIN: Final = os.EX_TEMPFAIL
INTERRUPTED: Final = 128 + signal.SIGINT
BROKEN_PIPE: Final = 128 + signal.SIGPIPE


#: columns where nobody looks: what a program reads is never cut off
_WIDE: Final = 10_000


class Output(Console):
    """stdout, for tables."""

    def __init__(self) -> None:
        super().__init__(highlight=False, width=None if sys.stdout.isatty() else _WIDE)

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
    return " ".join(": ".join(parts).split()) + number


def exit_code(error: OSError) -> int:
    """Return the exit code that an error leads to."""
    return {errno.EAGAIN: AGAIN, errno.EINTR: INTERRUPTED}.get(error.errno or 0, FAILED)

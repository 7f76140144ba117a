"""Threads of our own: how each of them is started, and what happens when there can be none.

The number of threads is limited (RLIMIT_NPROC, pids.max of a cgroup) and a stack takes address space, so a program that
uses both up can be refused a thread at any time, and have one again a moment later.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import ParamSpec

from uzswap.errors import os_error
from uzswap.signals import block_all_signals

__all__ = ["start_thread"]

P = ParamSpec("P")


def start_thread(name: str, target: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> threading.Thread:
    """Run a function in a background thread, which leaves all signals to the program's own; return the thread.

    Raises
    ------
    OSError
        EAGAIN: no thread can be had now.  Nothing was begun.
    """

    def run() -> None:
        block_all_signals()
        target(*args, **kwargs)

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:  # pthread_create failed; the interpreter is ending
        text = f"no thread can be had for {name} ({error}): raise ulimit -u or pids.max, or end some threads"
        raise os_error(errno.EAGAIN, text) from error
    return thread

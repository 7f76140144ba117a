"""A library to preload that ends the process when the locks of the data plane are not taken in one order.

It notes which mutex or rwlock is taken under which.  When a thread takes two of them in the opposite order of another,
or one that it has already, or Python takes a lock of its own (the GIL) under one of them, the process ends with status
70 and a backtrace on stderr.  So a hang is found without the two threads having to meet.
"""

import shutil
import subprocess
from pathlib import Path

import pytest


def build(directory: Path) -> str:
    """Compile the library, and return its path for LD_PRELOAD; skips the test where that is impossible."""
    library = directory / "lock_order.so"
    compile_c(Path(__file__).with_suffix(".c").read_text(encoding="utf-8"), library)
    return str(library)


def compile_c(source: str, library: Path) -> None:
    """Compile C source to a library, or skip the test."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc")
    options = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o", str(library), "-ldl", "-lpthread")
    subprocess.run([compiler, *options], input=source, text=True, check=True)

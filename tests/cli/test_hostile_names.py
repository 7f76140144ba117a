"""Names, paths and errors are anybody's: nothing in them acts on the terminal, or is taken for markup."""

from __future__ import annotations

import os
import pty
import subprocess

import pytest
from tests.cli.command import COMMAND, environment, uzswap

from uzswap import Zswap
from uzswap.cli.report import describe, printable

#: clears the screen, sets the title, is markup, an emoji code, no text, and goes back to the left
NASTY = "\x1b[2J\x1b]0;x\x07[red]:smile:\udcff\x9b\r\u202e"

SHOWN = "\\x1b[2J\\x1b]0;x\\x07[red]:smile:"


def on_a_terminal(*arguments: str) -> str:
    """Run the command on a terminal; return what it wrote."""
    ours, its = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdin=its, stdout=its, stderr=its, env=environment()) as process:
        os.close(its)
        data = b""
        try:
            while more := os.read(ours, 65536):
                data += more
        except OSError:  # EIO: nobody has the terminal any more
            pass
        finally:
            os.close(ours)
        process.wait()
    return data.decode(errors="surrogateescape")


@pytest.mark.parametrize(
    "command",
    [
        ("tree",),
        ("top", "--once"),
        ("ls", "cgroup"),
        ("stat", f"/{NASTY}"),
        ("cat", f"cgroup/{NASTY}/memory.max"),
        ("cat", f"cgroup/{NASTY}/nothing"),
        ("rmdir", f"cgroup/{NASTY}/nothing"),
        ("reclaim", f"/{NASTY}", "1M"),
        ("reclaim", f"/{NASTY}/nothing", "1M"),
        ("--engine", NASTY),
        ("tree", "--engine", NASTY),
        (NASTY,),
        ("engines",),
    ],
    ids=lambda command: printable(" ".join(command)),
)
def test_nothing_of_a_name_reaches_a_terminal(z: Zswap, command: tuple[str, ...]) -> None:
    z.cgroup(f"/{NASTY}")
    said = on_a_terminal(*command)
    for bad in ("\x1b[2J", "\x1b]", "\x07", "\udcff", "\x9b", "\u202e"):
        assert bad not in said, (command, said)
    assert "Traceback" not in said
    if command[0] in ("tree", "top", "ls") and "--engine" not in command:
        assert SHOWN in said


def test_a_program_gets_names_as_they_are(z: Zswap) -> None:
    z.cgroup("/a\x1bb")
    assert "a\x1bb/\n" in uzswap("ls", "cgroup").stdout


def test_errors_of_a_server_are_one_line_of_text() -> None:
    error = OSError(5, f"bad {NASTY}\n\nand more", f"/{NASTY}")
    assert describe(error).isprintable()

"""The command as a user runs it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.cli.command import COMMAND, environment, uzswap

from uzswap import Store, __version__, doctor
from uzswap.cli import demo
from uzswap.cli.main import run


def test_version() -> None:
    """In an interpreter that has imported nothing."""
    result = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, env=environment())
    assert (result.returncode, result.stdout, result.stderr) == (0, f"uzswap, version {__version__}\n", "")


def test_help_names_the_commands() -> None:
    bare, asked = uzswap(), uzswap("--help")
    assert bare.returncode == asked.returncode == 0
    assert bare.stdout == asked.stdout
    assert re.search(r"^  demo ", asked.stdout, re.MULTILINE)
    assert re.search(r"^  doctor ", asked.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dmeo"], "dmeo"),
        (["--frobnicate"], "--frobnicate"),
        (["demo", "--size", "much"], "much"),
        (["demo", "--size", "-1"], "-1"),
        (["demo", "--size", "4K"], "4K"),
        (["demo", "--size"], "--size"),
        (["demo", "--walk", "random"], "random"),
        (["demo", "extra"], "extra"),
        (["doctor", "extra"], "extra"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments: list[str], named: str) -> None:
    result = uzswap(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"uzswap: .+\n", result.stderr)
    assert named in result.stderr


def test_an_error_of_the_system_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    result = uzswap("demo", "--size", "1M", "--swap", str(tmp_path / "missing" / "swap"))
    assert result.returncode == 1
    assert re.fullmatch(r"uzswap: .*missing.*\n", result.stderr)


@pytest.mark.parametrize("walk", ["fair", "coldest", "v5"])
def test_demo_verifies_everything(walk: str, tmp_path: Path) -> None:
    swap = tmp_path / "swap"
    result = uzswap("demo", "--size", "2M", "--walk", walk, "--swap", str(swap))
    assert result.stderr == ""
    assert result.returncode == 0
    assert re.search(r"^ +\d+ objects, .*: all identical$", result.stdout, re.MULTILINE)
    # The second tenant's bytes went to the disk although the first one's were kept from it.
    assert "EINVAL" in result.stdout
    assert "every number of the array is right" in result.stdout or "no paged arrays here" in result.stdout


def test_demo_fails_when_an_object_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Forgetful(Store[str, bytes]):
        def __getitem__(self, key: str) -> bytes:
            return bytes(len(super().__getitem__(key)))

    monkeypatch.setattr(demo, "Store", Forgetful)
    assert run(["demo", "--size", "1M"]) == 1
    assert re.search(r"^ +/.* differs$", capsys.readouterr().out, re.MULTILINE)


def test_doctor_prints_every_probe() -> None:
    result = uzswap("doctor")
    findings = doctor()
    assert result.stderr == ""
    assert result.returncode == int(any(f.required and f.level.value == "missing" for f in findings))
    for finding in findings:
        assert finding.what in result.stdout
        assert finding.fix in result.stdout


def test_doctor_for_programs() -> None:
    result = uzswap("doctor", "--json")
    told = json.loads(result.stdout)
    by_name = {one["what"]: one for one in told}
    for finding in doctor():
        one = by_name[finding.what]
        assert (one["level"], one["fix"], one["required"]) == (finding.level.value, finding.fix, finding.required)
    assert [one for one in told if one["what"].startswith("agent")]

"""The unit for systemd is one, and what it names is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from uzswap.agent.config import Config

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "systemd" / "uzswap-agent.service"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("units are checked by systemd-analyze: apt install systemd")
    # It complains of what it does not know on stderr, and succeeds; of a program that is not there as well.
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(UNIT)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_not_take_a_wrong_one(tmp_path: Path) -> None:
    """That the check checks."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("units are checked by systemd-analyze: apt install systemd")
    wrong = tmp_path / UNIT.name
    wrong.write_text(UNIT.read_text().replace("MemoryMin=64M", "MemoryMin=much"))
    done = subprocess.run(["systemd-analyze", "verify", str(wrong)], capture_output=True, text=True, check=False)
    assert "Invalid memory limit" in done.stderr


def test_the_unit_keeps_its_promises() -> None:
    """MemoryMin for itself, a watchdog slower than its beat, state that is kept, and control files to write to."""
    settings = dict(re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text()))
    assert settings["Type"] == "notify"
    assert int(settings["WatchdogSec"]) >= 5 * 6
    assert settings["MemoryMin"] == "64M"
    assert settings["StateDirectory"] == "uzswap-agent"
    assert settings["ReadWritePaths"] == "/sys/fs/cgroup"
    assert settings["ProtectControlGroups"] == "no"


def test_a_container_has_what_the_engine_links_to_and_the_same_command() -> None:
    text = (PACKAGING / "container" / "Dockerfile").read_text()
    for library in ("liblz4", "libzstd", "libxxhash"):
        assert f"{library}-dev" in text
        assert re.search(rf"{library}[0-1-]", text.split("FROM", 2)[2])
    assert '"uzswap", "agent", "run"' in text
    assert "--cgroupns=host" in text


def test_the_example_says_only_what_is_so() -> None:
    assert Config.read(str(PACKAGING / "agent.toml")).agent.watch

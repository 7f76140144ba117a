"""The state directory of an agent: what is in it is believed, so nobody else may write there."""

import errno
import json
import os
from pathlib import Path

import pytest
from tests.support.child import run, run_as_nobody

from uzswap.agent.state import private_directory


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert made == tmp_path / "a" / "b"
    assert made.stat().st_mode & 0o777 == 0o700
    assert private_directory(tmp_path / "a" / "b") == made


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_one_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(PermissionError, match="others may write") as refused:
        private_directory(place)
    assert refused.value.errno == errno.EPERM
    assert refused.value.filename == str(place)


def test_one_in_whose_place_others_may_put_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        private_directory(tmp_path / "open" / "state")
    (tmp_path / "open").chmod(0o1777)
    private_directory(tmp_path / "open" / "state")


def test_one_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a directory away needs root: run the tests as root")
    place = tmp_path / "state"
    place.mkdir()
    os.chown(place, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        private_directory(place)
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        private_directory(tmp_path / "link")


def test_what_cannot_be_made_is_said_later(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    private_directory(tmp_path / "file" / "state")


def test_an_agent_of_root_writes_nothing_that_somebody_else_asks_for(tmp_path: Path) -> None:
    """A journal of limits to be written back, put where an agent is told to keep its own."""
    if os.geteuid() != 0:
        pytest.skip("two users are needed: run the tests as root")
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    code = """
        import json, os, sys, tempfile
        place = tempfile.mkdtemp(dir="/tmp")
        with open(os.path.join(place, "lowered.json"), "w") as journal:
            json.dump({sys.argv[1]: "overwritten"}, journal)
        print(place)
        """
    place = Path(run_as_nobody(code, args=[str(victim)]).check().stdout.strip())
    try:
        agent = "from uzswap.cli.main import main; main()"
        args = ["agent", "run", "--root", str(tmp_path), "--state", str(place), "--for", "1s"]
        done = run(agent, args=args)
        assert done.returncode != 0
        assert "belongs to user" in done.stderr
        assert victim.read_text() == "as it was"
    finally:
        assert json.loads((place / "lowered.json").read_text())
        (place / "lowered.json").unlink()
        place.rmdir()

"""Where engines are found, and what becomes of it when they end, are closed, or never ended."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest
from tests.conftest import EngineFactory
from tests.serve.conftest import needs_fuse
from tests.serve.doors import fails
from tests.support.child import Child

from uzswap import Zswap
from uzswap.client.runtime import Entry, engines, find, runtime_directory


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


SERVES = """
    import sys, uzswap
    z = uzswap.Zswap(swap_size="16M")
    print(z.serve().path)
    input()
    z.close()
"""


def test_an_engine_is_found_while_it_is_served(z: Zswap, private: Path) -> None:
    assert engines() == []
    with fails(errno.ENOENT):
        find()
    with z.serve(private / "s"):
        entry = find()
        assert (entry.pid, entry.socket) == (os.getpid(), str(private / "s"))
        assert find(entry.name) == entry
        with fails(errno.ENOENT):
            find("nobody")
    assert find().socket is None  # closed: there is nothing to connect to any more
    z.close()
    assert engines() == []
    assert list((private / "uzswap").iterdir()) == []


@needs_fuse
def test_the_entry_says_what_there_is_now(z: Zswap, private: Path) -> None:
    first = z.mount(private / "m")
    second = z.mount(private / "n")
    server = z.serve()
    assert find().mounts == [str(private / "m"), str(private / "n")]
    first.close()
    assert find().mounts == [str(private / "n")]
    assert find().socket == str(server.path)
    server.close()
    second.close()
    assert (find().mounts, find().socket) == ([], None)


def test_several_engines(engine: EngineFactory, private: Path) -> None:
    one, two = engine(), engine()
    with one.serve() as first, two.serve() as second, Child(SERVES) as child:
        third = child.read_line()
        found = engines()
        assert {entry.socket for entry in found} == {str(first.path), str(second.path), third}
        assert len({entry.name for entry in found}) == 3
        with pytest.raises(OSError, match=r"\[Errno 22\].*several engines.*--engine"):
            find()
        child.write_line("end")
        child.wait().check()
        assert len(engines()) == 2


def test_what_a_killed_process_left_is_cleaned_away(private: Path) -> None:
    with Child(SERVES) as child:
        path = Path(child.read_line())
        assert [entry.pid for entry in engines()] == [child.pid]
        child.kill()
    assert path.exists()
    assert engines() == []
    assert not path.exists()
    assert list((private / "uzswap").iterdir()) == []


def test_a_number_that_is_used_again_is_not_the_old_process(private: Path) -> None:
    entry = Entry.mine(1)
    entry.started -= 1
    entry.write(runtime_directory())
    assert engines() == []


WHOLE = {"pid": 1, "started": 2, "number": 1, "command": "x", "socket": None, "mounts": []}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"pid": 1}', '{"unknown": 1}', "[" * 100_000, "\x00", "\udcff"]
    + [
        json.dumps(WHOLE | {key: value})
        for key in WHOLE
        for value in ({}, [1], -1.5, "a\0b", "\ud800", True, None)
        if (key, value) != ("socket", None)
    ],
)
def test_entries_that_are_no_entries(private: Path, text: str) -> None:
    (runtime_directory() / "1.json").write_text(text, errors="surrogateescape")
    assert engines() == []


def test_entries_that_are_no_files(private: Path) -> None:
    directory = runtime_directory()
    (directory / "directory.json").mkdir()
    (directory / "loop.json").symlink_to(directory / "loop.json")
    (directory / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(directory / "pipe.json")
    assert engines() == []
    assert (directory / "directory.json").is_dir()


def test_a_directory_that_is_not_private(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (private / "uzswap").mkdir(mode=0o755)
    (private / "uzswap").chmod(0o755)
    with fails(errno.EPERM):
        runtime_directory()
    (private / "uzswap").rmdir()
    (private / "uzswap").symlink_to("/")
    with fails(errno.EPERM):
        runtime_directory()


def test_nothing_stays_when_the_directory_cannot_be_used(z: Zswap, private: Path) -> None:
    (private / "uzswap").touch()
    with fails(errno.EPERM):
        z.serve(private / "s")
    assert not (private / "s").exists()


def test_without_a_runtime_directory_of_ones_own(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there in a container, and somebody else's after sudo."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    expected = tmp_path / f"uzswap-{os.getuid()}"
    assert runtime_directory({}) == expected
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path / "nothing")}) == expected
    if os.getuid() == 0:
        os.chown(private, 65534, 65534)
        assert runtime_directory({"XDG_RUNTIME_DIR": str(private)}) == expected


@pytest.mark.parametrize("taken", ["directory", "file", "link"])
def test_a_name_that_somebody_else_has_taken(
    engine: EngineFactory, private: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """In /tmp anybody can make what has the name of ours."""
    if os.getuid() != 0:
        pytest.skip("another user's files can only be made as root: run the tests as root")
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    theirs = [private / f"uzswap-{os.getuid()}", private / f"uzswap-{os.getuid()}-aaaa"]
    for path in theirs:
        {"directory": path.mkdir, "file": path.touch, "link": lambda path=path: path.symlink_to("/etc")}[taken]()
        os.chown(path, 65534, 65534, follow_symlinks=False)
    directory = runtime_directory()
    assert directory.parent == private
    assert directory not in theirs
    assert directory.stat().st_mode & 0o777 == 0o700
    assert runtime_directory() == directory  # the same for everybody
    z = engine()
    with z.serve() as server:
        assert server.path.parent == directory
        assert [entry.pid for entry in engines()] == [os.getpid()]
    # What was served there is found also when the name is free again.
    with z.serve():
        for path in theirs:
            path.rmdir() if taken == "directory" else path.unlink()
        assert [entry.pid for entry in engines()] == [os.getpid()]


def test_a_base_that_others_can_write_to(private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private.chmod(0o1777)
    assert runtime_directory().parent == tmp_path


def test_an_entry_is_json_and_private(z: Zswap, private: Path) -> None:
    with z.serve():
        (path,) = (private / "uzswap").glob("*.json")
        told = json.loads(path.read_text())
        assert told["pid"] == os.getpid()
        assert told["socket"].startswith(str(private / "uzswap"))


def test_a_closed_engine_serves_no_more(engine: EngineFactory, private: Path) -> None:
    z = engine()
    z.serve(private / "s")
    z.close()
    with fails(errno.EBADF):
        z.serve(private / "s")
    assert not (private / "s").exists()


def test_serving_while_the_engine_is_being_closed(engine: EngineFactory, private: Path) -> None:
    """Whatever comes first, nothing is left: the fixture finds a socket, a thread or a file that is."""
    for number in range(10):
        z = engine()
        outcome: list[int] = []

        def serve(z: Zswap = z, number: int = number, outcome: list[int] = outcome) -> None:
            try:
                z.serve(private / f"s{number}")
            except OSError as error:
                outcome.append(error.errno or 0)

        threads = [threading.Thread(target=serve), threading.Thread(target=z.close)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcome in ([], [errno.EBADF])
        assert not (private / f"s{number}").exists()

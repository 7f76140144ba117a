"""``uzswap replay``: what it prints, and that the same trace gives the same figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import uzswap
from tests.support.child import Child

from uzswap.cli.main import run
from uzswap.replay.run import Case, replay


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Half an hour: 20 hot pages, 300 that are read once, 50 that come back after 20 minutes."""
    lines = ["# uzswap trace"]
    for second in range(1800):
        pages = [second % 20]
        if second < 300:
            pages.append(100 + second)
        if second < 50 or 1200 <= second < 1250:
            pages.append(1000 + second % 1200)
        lines += [f"{second}.0 {page}" for page in pages]
    path = tmp_path / "small.trace"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def outcomes(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert run(["replay", *arguments, "--json", "--workers", "1"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_object_a_policy(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = outcomes(capsys, trace, "--policy", "twostage,senpai")
    assert [one["policy"] for one in found] == ["twostage", "senpai"]
    for one in found:
        assert list(one) == [
            "policy", "accesses", "saved_share", "lost_share", "refaults", "written_bytes", "belady",
        ]  # fmt: skip
        assert one["accesses"] == 2200
        assert set(one["refaults"]) == {"zswap", "disk"}  # type: ignore[call-overload]
        best = one["belady"]
        assert isinstance(best, dict)
        assert best["lost_share"] == one["lost_share"]
        assert 0 < float(str(one["saved_share"])) <= best["saved_share"] <= 1
        assert 0 <= float(str(one["lost_share"])) < 0.01
    assert int(str(found[0]["written_bytes"])) > 0 == found[1]["written_bytes"]


def test_the_same_trace_gives_the_same_figures(trace: str) -> None:
    first, second = (replay(Case(trace, "twostage")).as_json() for _ in range(2))
    assert first == second


def test_no_budget_is_no_writing(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = outcomes(capsys, trace, "--budget", "0")
    assert found["written_bytes"] == 0


@pytest.mark.parametrize("policy", ["senpai", "tmo", "refault", "farmem", "idle", "twostage"])
def test_every_policy_is_replayed(trace: str, policy: str) -> None:
    outcome = replay(Case(trace, policy, {"idle.after": "2m"}))
    assert outcome.saved_share <= outcome.best + 1e-9
    assert outcome.seconds == pytest.approx(1799, rel=0.01)
    assert outcome.course


def test_a_sweep_multiplies_and_says_its_settings(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("--sweep", "twostage.age_min=1m,5m", "--sweep", "twostage.probe_max=0.1,0.25")
    found = outcomes(capsys, trace, *sweep)
    settings = [one["settings"] for one in found]
    assert [tuple(one.values()) for one in settings] == [  # type: ignore[attr-defined]
        ("1m", "0.1"), ("1m", "0.25"), ("5m", "0.1"), ("5m", "0.25"),
    ]  # fmt: skip


@pytest.mark.slow
def test_in_processes_and_as_a_table(trace: str) -> None:
    done = uzswap("replay", trace, "--policy", "twostage,tmo", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["small.trace", "twostage"], ["small.trace", "tmo"],
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_plot(trace: str, tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'uzswap[plot]'")
    path = tmp_path / f"out.{ending}"
    done = uzswap("replay", trace, "--plot", str(path), "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def test_lengths_of_an_engine(trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pages that do not compress save nothing in zswap; what is written is what they are."""
    lengths = tmp_path / "lengths"
    lengths.write_text("stored sum=4096 256=0 2048=0 4096=3 inf=0\n")
    poor = ("--set", "twostage.writeback=false", "--lengths", str(lengths))
    (found,) = outcomes(capsys, trace, *poor)
    assert float(str(found["saved_share"])) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policy", "towstage"), "did you mean twostage?"),
        (("--set", "twostage.age=1"), "no setting here"),
        (("--sweep", "twostage.age_min"), "NAME=A,B"),
        (("--duration", "long"), "is no duration"),
    ],
)
def test_what_is_wrong_is_said(
    trace: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert run(["replay", trace, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_trace_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_text("hello\n")
    assert run(["replay", str(tmp_path / "t"), "--workers", "1"]) == 1
    assert "none of the formats" in capsys.readouterr().err


@pytest.mark.slow
def test_on_a_cluster(trace: str) -> None:
    pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")
    code = """
        import sys
        from distributed import LocalCluster
        from uzswap.cli.main import run

        if __name__ == "__main__":
            with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
                address = cluster.scheduler_address
                code = run(["replay", sys.argv[1], "--policy", "twostage,tmo", "--dask", address, "--json"])
            sys.exit(code)
    """
    with Child(code, [trace]) as child:
        found = [json.loads(child.read_line()) for _ in range(2)]
        child.wait().check()
    assert [one["policy"] for one in found] == ["twostage", "tmo"]
    assert found[0] == replay(Case(trace, "twostage")).as_json()

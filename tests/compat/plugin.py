"""A pytest plugin: notes how each test ended, and has every numpy allocation above a threshold paged, when asked to.

UZSWAP_COMPAT_OUT    file for the outcomes, JSON: test id -> how it ended
UZSWAP_COMPAT_MIN    threshold, such as 4K; without it nothing is paged
UZSWAP_COMPAT_MAX    budget, such as 16M: memory.max
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest

import uzswap

OUTCOMES: dict[str, str] = {}
_PAGED = pytest.StashKey[uzswap.managed]()


def pytest_configure(config: pytest.Config) -> None:
    if threshold := os.environ.get("UZSWAP_COMPAT_MIN"):
        z = uzswap.Zswap(swap_size="8G", max_pool="1G")
        group = z.cgroup("/tests")
        group.write("memory.max", os.environ["UZSWAP_COMPAT_MAX"])
        config.stash[_PAGED] = uzswap.managed(group, threshold).start()


def pytest_unconfigure(config: pytest.Config) -> None:
    facts: dict[str, int] = {}
    if paged := config.stash.get(_PAGED, None):
        paged.stop()
        gc.collect()
        z = paged.cgroup.zswap
        memory = z.arena.memory
        assert memory is not None
        info = memory.info()
        z.arena.count_faults(paged.cgroup)
        facts = {
            "faults": info.faults,
            "evicted": info.evicted,
            "peak": int(paged.cgroup.read("memory.peak")),
            "oom": paged.cgroup.events["oom"],
            "wrong": len(z.core.check()),
        }
    outcomes = {"outcomes": OUTCOMES, "facts": facts}
    Path(os.environ["UZSWAP_COMPAT_OUT"]).write_text(json.dumps(outcomes))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of setup, call and teardown."""
    outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    if (report.when == "call" or outcome != "passed") and OUTCOMES.get(report.nodeid) != "failed":
        OUTCOMES[report.nodeid] = outcome


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        OUTCOMES[f"collecting {report.nodeid}"] = "failed"

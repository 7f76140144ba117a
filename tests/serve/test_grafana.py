"""The dashboard and the alert rules name what is exported, labels included."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import EngineFactory
from tests.serve.metrics_page import metrics, page
from tests.support.states import fill

from uzswap import Zswap
from uzswap.agent.metrics import Metrics
from uzswap.serve.metrics import exposition

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = DOCS / "grafana" / "uzswap.json"
ALERTS = DOCS / "grafana" / "alerts.yml"
#: labels that Prometheus gives itself
GIVEN = {"instance", "job"}


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    z = engine(swap_size="16M")
    z.cgroup("/a")
    return z


def exported(z: Zswap) -> dict[str, set[str]]:
    """Every name of a sample, with its labels: of the engine, and of the agent."""
    found: dict[str, set[str]] = {}
    for name, (kind, labels, _) in metrics(z).items():
        for suffix in ("_bucket", "_count", "_sum") if kind == "histogram" else ("",):
            found[name + suffix] = set(labels) - ({"le"} if suffix in ("_count", "_sum") else set())
    for name, kind, _, labels, _ in Metrics().samples():
        found[f"{name}_total" if kind == "counter" else name] = set(labels)
    return found


def expressions() -> list[tuple[str, str]]:
    """(expression, texts that name labels of what it gives)."""
    dashboard = json.loads(DASHBOARD.read_text())
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    found = [(one["expr"], one["legendFormat"]) for panel in dashboard["panels"] for one in panel["targets"]]
    found += [(rule["expr"], " ".join(rule["annotations"].values())) for rule in rules]
    return found + [(one["definition"], "") for one in dashboard["templating"]["list"] if one["type"] == "query"]


def test_every_name_and_label_is_exported(z: Zswap) -> None:
    known = exported(z)
    assert len(expressions()) > 30
    for expression, text in expressions():
        bare = re.sub(r'"[^"]*"', '""', expression)
        names = set(re.findall(r"\buzswap_\w+", bare))
        assert names, expression
        assert names <= known.keys(), expression
        labels = set.union(*(known[name] for name in names)) | GIVEN
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=(?!=))", bare))
        for listed in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", bare):
            used |= set(re.split(r",\s*", listed))
        used |= set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text))
        assert used <= labels, (expression, text)


def test_counters_are_rates_and_gauges_are_not(z: Zswap) -> None:
    kinds = {name: kind for name, (kind, _, _) in metrics(z).items()}
    for expression, _ in expressions():
        for name in re.findall(r"\buzswap_\w+", expression):
            inside = re.search(rf"(?:rate|increase)\({name}\b", expression) is not None
            counts = name.endswith(("_total", "_bucket"))
            assert inside == counts, expression
            if name in kinds:
                assert (kinds[name] == "counter") == name.endswith("_total")


def test_the_dashboard_is_one() -> None:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", " ".join(expression for expression, _ in expressions()))) - {"labels", "value"}
    assert used - {"__rate_interval"} <= variables
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)


def test_the_rules_are_rules() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_page_lists_what_is_exported(z: Zswap) -> None:
    assert (DOCS / "metrics.md").read_text() == page(z), "run: python -m tests.serve.metrics_page > docs/metrics.md"


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus"
)


@needs_promtool
def test_promtool_takes_the_metrics(z: Zswap) -> None:
    """It has one remark: about a key of the kernel's, zswpwb_proactive_b, which it takes for an abbreviated unit."""
    fill(z, z.cgroup("/a"), 3, 1000, referenced=False)
    z.cgroup("/a").reclaim("1000", source="zswap")
    for zeros in (False, True):
        text = exposition(z, zeros=zeros)[0]
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        assert done.returncode in (0, 3), done.stderr.decode()
        remarks = (done.stdout + done.stderr).decode().splitlines()
        assert all("uzswap_memory_stat_zswpwb_proactive_b_bytes_total" in one for one in remarks if one), remarks


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

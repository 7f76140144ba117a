"""The metrics: valid, complete, with units, and the same numbers as the files."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.conftest import EngineFactory
from tests.serve.doors import fails
from tests.support.states import fill, reclaim

from uzswap import MemCgroup, Zswap
from uzswap.client.client import Client
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES
from uzswap.serve.metrics import BUCKETS, ZswapCollector, exposition

UNITS = ("bytes", "pages", "entries", "segments", "events", "cgroups", "percent", "seconds")


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    return engine()


@pytest.fixture
def g(z: Zswap) -> MemCgroup:
    return z.cgroup("/jobs/a")


def samples(text: str) -> dict[str, list[Sample]]:
    found = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].append(sample)
    return found


def scrape(z: Zswap) -> dict[str, list[Sample]]:
    return samples(exposition(z)[0].decode())


def value(found: dict[str, list[Sample]], name: str, **labels: str) -> float:
    (one,) = [sample for sample in found[name] if labels.items() <= sample.labels.items()]
    return one.value


def test_every_number_of_every_file(z: Zswap, g: MemCgroup) -> None:
    """Asked for, also what is 0; but for what the kernel has and we have not, and what two files tell."""
    fill(z, g, 10, 1000, referenced=False)
    reclaim(g, 3000)
    found = samples(exposition(z, zeros=True)[0].decode())
    for name, row in FILES.items():
        base = "uzswap_" + re.sub(r"\W", "_", name.removeprefix("uzswap."))
        if row.shape == "flat_keyed" and name not in ("cgroup.stat", "cgroup.events"):
            for line in g.read(name).splitlines():
                key, number = line.split()
                key = re.sub(r"\W", "_", key.removeprefix("uzswap."))
                names = [one for one in found if re.fullmatch(rf"{base}_{key}(_[a-z]+)?(_total)?", one)]
                if names or number != "0":
                    told = names or [one for one in found if one.startswith(f"uzswap_{key}") or "_current_" in one]
                    assert any(value(found, one, cgroup="/jobs/a") == float(number) for one in told), f"{name} {key}"
        elif row.shape in ("value", "limit", "flag"):
            text = g.read(name).strip()
            names = [one for one in found if re.fullmatch(rf"{base}(_[a-z]+)?(_total)?", one)]
            expected = float("inf") if text == "max" else float(text)
            assert any(
                sample.value == expected
                for one in names
                for sample in found[one]
                if sample.labels["cgroup"] == "/jobs/a"
            ), name
    for path, engine_row in ENGINE_FILES.items():
        if engine_row.shape in ("value", "flag", "word", "flat_keyed", "histogram"):
            base = "uzswap_" + re.sub(r"\W", "_", path.replace("uzswap.", ""))
            assert [one for one in found if one.startswith(base)], path


def test_what_is_zero_is_not_said(z: Zswap, g: MemCgroup) -> None:
    """But the use of memory, by which one sees that the cgroup is there, and what has been something else."""
    text = exposition(z)[0].decode()
    assert [line for line in text.splitlines() if '"/jobs/a"' in line] == [
        'uzswap_memory_current_bytes{cgroup="/jobs/a"} 0'
    ]
    handles = fill(z, g, 10, 1000, referenced=False)
    z.free_many(handles)
    found = scrape(z)
    assert value(found, "uzswap_memory_zswap_current_bytes", cgroup="/jobs/a") == 0
    assert value(found, "uzswap_memory_stat_zswpout_pages_total", cgroup="/jobs/a") == 10
    assert not [name for name in found if name.startswith("uzswap_memory_max")]
    g.write("memory.max", "1M")
    assert value(scrape(z), "uzswap_memory_max_bytes", cgroup="/jobs/a") == 1 << 20


def test_buckets_by_configuration(z: Zswap, g: MemCgroup) -> None:
    z.fault_in_many(fill(z, g, 10, 1000, referenced=False))
    name = "uzswap_zswap_debug_load_latency_seconds"
    counts = {}
    for which in BUCKETS:
        found = samples(exposition(z, buckets=which)[0].decode())
        assert value(found, f"{name}_count", series="zswap") == 10
        assert value(found, f"{name}_bucket", series="zswap", le="+Inf") == 10
        counts[which] = len(found[f"{name}_bucket"])
    assert counts["none"] < counts["some"] < counts["all"]


def test_names_have_units(z: Zswap, g: MemCgroup) -> None:
    """But flags, and what only has a value as a label."""
    flags = (
        "oom_group",
        "writeback",
        "populated",
        "frozen",
        "enabled",
        "reached_full",
        "direct",
        "asynchronous",
        "encrypted",
        "info",
    )
    for family in text_string_to_metric_families(exposition(z)[0].decode()):
        assert family.name.endswith(UNITS) or family.name.endswith((*flags, "_info")), family.name
        assert family.documentation


def test_counters_and_levels(z: Zswap, g: MemCgroup) -> None:
    text = exposition(z, zeros=True)[0].decode()
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert kinds["uzswap_memory_stat_zswpwb_pages"] == "counter"
    assert kinds["uzswap_memory_events_oom_events"] == "counter"
    assert kinds["uzswap_memory_pressure_seconds"] == "counter"
    assert kinds["uzswap_memory_pressure_avg10_percent"] == "gauge"
    assert kinds["uzswap_zswap_debug_pool_total_size_bytes"] == "gauge"
    assert kinds["uzswap_zswap_debug_stored_pages"] == "gauge"
    assert kinds["uzswap_zswap_debug_written_back_pages"] == "counter"
    assert kinds["uzswap_memory_current_bytes"] == "gauge"
    assert kinds["uzswap_zswap_debug_load_latency_seconds"] == "histogram"


def test_histograms(z: Zswap, g: MemCgroup) -> None:
    handles = fill(z, g, 10, 1000, referenced=False)
    reclaim(g, 3000)
    z.fault_in_many(handles)
    found = samples(exposition(z, buckets="all")[0].decode())
    assert value(found, "uzswap_zswap_debug_compressed_size_bytes_count") == 10
    assert value(found, "uzswap_zswap_debug_compressed_size_bytes_sum") == 10_000
    assert value(found, "uzswap_zswap_debug_compressed_size_bytes_bucket", le="768.0") == 0
    assert value(found, "uzswap_zswap_debug_compressed_size_bytes_bucket", le="1024.0") == 10
    assert value(found, "uzswap_zswap_debug_load_latency_seconds_count", series="zswap") == 7
    assert value(found, "uzswap_zswap_debug_load_latency_seconds_count", series="disk") == 3
    assert value(found, "uzswap_zswap_debug_writeback_age_seconds_count", series="written_back") == 3
    for name, buckets in found.items():
        if name.endswith("_bucket"):
            counts = [sample.value for sample in buckets if sample.labels["series"] in ("zswap", "stored")]
            assert counts == sorted(counts)


def test_names_of_cgroups_are_only_labels(z: Zswap) -> None:
    names = ['a"b', "a\\b", "ü ñ", "{x}", "#"]
    for name in names:
        z.cgroup(f"/{name}")
    assert {sample.labels["cgroup"] for sample in scrape(z)["uzswap_memory_current_bytes"]} == {f"/{n}" for n in names}


def test_a_name_that_is_no_text(z: Zswap) -> None:
    z.tree.mkdir(z.root, "\udcff")
    labels = {sample.labels["cgroup"] for sample in scrape(z)["uzswap_memory_current_bytes"]}
    assert labels == {"/\\xff"}


def test_both_formats(z: Zswap, g: MemCgroup) -> None:
    body, content_type = exposition(z, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert list(open_families(body.decode()))
    assert exposition(z)[1].startswith("text/plain")


def test_with_other_metrics_of_the_program(engine: EngineFactory) -> None:
    one, two = engine(), engine()
    registry = CollectorRegistry()
    registry.register(ZswapCollector(one, {"engine": "one"}))
    registry.register(ZswapCollector(two, {"engine": "two"}))
    found = samples(generate_latest(registry).decode())
    assert {sample.labels["engine"] for sample in found["uzswap_zswap_debug_stored_pages"]} == {"one", "two"}


def test_on_the_socket(z: Zswap, g: MemCgroup, private: Path) -> None:
    with z.serve(private / "s") as server, Client(server.path) as client:
        assert 'uzswap_memory_current_bytes{cgroup="/jobs/a"} 0' in client.read("/metrics")


def test_without_the_library(z: Zswap, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with z.serve(private / "s") as server, Client(server.path) as client:
        monkeypatch.setitem(sys.modules, "uzswap.serve.metrics", None)
        with fails(95):  # EOPNOTSUPP
            client.read("/metrics")
        assert client.read("/vmstat")

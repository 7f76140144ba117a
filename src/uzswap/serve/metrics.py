"""Prometheus metrics, made from the table of control files: every number of every cgroup, and of the engine.

A metric is named after its file and key, with its unit at the end: ``uzswap_memory_current_bytes{cgroup="/jobs/a"}``,
``uzswap_memory_stat_zswpwb_pages_total``, ``uzswap_zswap_debug_pool_total_size_bytes``.  ``max`` is +Inf.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from math import isinf
from typing import TYPE_CHECKING, Any, Final

from uzswap.cgroup.stat import Stat
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES
from uzswap.files.file import FileType
from uzswap.files.histograms import Series, parse_series

if TYPE_CHECKING:
    from uzswap.files.view import EngineView

try:
    from prometheus_client.core import (
        CollectorRegistry,
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("metrics need prometheus-client: pip install 'uzswap[metrics]'") from error

__all__ = ["ZswapCollector", "exposition"]

_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_]+")
_FLAGS: Final = {"Y": 1.0, "N": 0.0, "max": float("inf")}
#: units that Prometheus has its own name for; a kB is 1024 bytes, as in /proc/meminfo
_UNITS: Final = {"kB": ("bytes", 1024.0), "ns": ("seconds", 1e-9), "percent": ("percent", 1.0), "bool": ("", 1.0)}
_PRESSURE: Final = Stat("", "seconds", True, "time in which some, or all, threads waited for memory")


def exposition(engine: EngineView, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics of an engine as text and its content type, in the format that ``accept`` asks for.

    What is no format is taken for none.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ZswapCollector(engine))
    try:
        encoder, content_type = choose_encoder(accept)
    except (ValueError, TypeError):
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type


class ZswapCollector(Collector):
    """Reads every file at every scrape; register it with a registry to have an engine beside other metrics.

    Parameters
    ----------
    engine
        A Zswap.
    labels
        Put on every sample, to tell several engines of a process apart.
    """

    def __init__(self, engine: EngineView, labels: dict[str, str] | None = None) -> None:
        self._engine = engine
        self._labels = labels or {}

    def describe(self) -> list[Metric]:
        """Return nothing: what there is turns up when it is collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each number of each file, with a sample for each cgroup that has the file."""
        cgroups = list(self._engine.tree.root.preorder())
        for row in FILES.values():
            families = _Families(row, [*self._labels, "cgroup"])
            for cgroup in cgroups:
                if row.reader is None or (cgroup.parent is None and not row.on_root):
                    continue
                try:
                    text = row.read(cgroup, cgroup)
                except OSError:  # removed meanwhile
                    continue
                # A name may have bytes that are no text; a label may not.
                path = os.fsencode(cgroup.path).decode(errors="backslashreplace")
                families.add(text, [*self._labels.values(), path])
            yield from families.made.values()
        for engine_row in ENGINE_FILES.values():
            families = _Families(engine_row, list(self._labels))
            families.add(engine_row.read(self._engine, self._engine.tree.root), list(self._labels.values()))
            yield from families.made.values()


class _Families:
    """The metrics of one file."""

    def __init__(self, row: FileType[Any], labels: list[str]) -> None:
        self._row = row
        self._labels = labels
        self._keys = {key.name: key for key in row.keys}
        #: key -> its metric, and what its numbers are multiplied by; working that out takes longer than a sample
        self._numbers: dict[str, tuple[CounterMetricFamily | GaugeMetricFamily, float]] = {}
        self.made: dict[str, CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily] = {}

    def add(self, text: str, labels: list[str]) -> None:
        """Add a sample for each number in the text of the file."""
        row = self._row
        if row.shape in ("value", "limit", "flag"):
            self._sample(Stat("", row.unit, row.counter, row.help), text.strip(), labels)
        elif row.shape == "word":
            self._sample(Stat("info", "", False, row.help), "1", labels, ("value", text.strip()))
        elif row.shape == "flat_keyed":
            for line in text.splitlines():
                key, value = line.split()[:2]
                self._sample(self._stat(key.rstrip(":")), value, labels)
        elif row.shape == "histogram":
            for series in parse_series(text):
                self._histogram(series, labels)
        elif row.name == "memory.pressure":
            for line in text.splitlines():
                state, *averages, total = line.split()
                self._sample(_PRESSURE, str(int(total.partition("=")[2]) / 1e6), labels, ("state", state))
                for average in averages:
                    name, _, value = average.partition("=")
                    stat = Stat(name, "percent", False, f"share of such time, over {name.removeprefix('avg')} s")
                    self._sample(stat, value, labels, ("state", state))
        elif row.name == "memory.numa_stat":
            for line in text.splitlines():
                key, *nodes = line.split()
                for node in nodes:
                    name, _, value = node.partition("=")
                    self._sample(self._stat(key), value, labels, ("node", name.removeprefix("N")))

    def _histogram(self, series: Series, labels: list[str]) -> None:
        unit, factor = _UNITS.get(self._row.unit, (self._row.unit, 1.0))
        name = self._name("", unit)
        family = self.made.get(name)
        if family is None:
            family = self.made[name] = HistogramMetricFamily(name, self._row.help, labels=[*self._labels, "series"])
        assert isinstance(family, HistogramMetricFamily)
        buckets, so_far = [], 0
        for bound, count in series.classes:
            so_far += count
            buckets.append(("+Inf" if isinf(bound) else repr(bound * factor), so_far))
        family.add_metric([*labels, series.name], buckets, series.sum * factor)

    def _stat(self, key: str) -> Stat:
        stat = self._keys.get(key)
        return stat or Stat(key, self._row.unit or "entries", help=self._row.help)

    def _sample(self, stat: Stat, text: str, labels: list[str], extra: tuple[str, str] | None = None) -> None:
        found = self._numbers.get(stat.name)
        if found is None:
            unit, factor = _UNITS.get(stat.unit, (stat.unit, 1.0))
            name = self._name(stat.name, unit)
            kind = CounterMetricFamily if stat.counter else GaugeMetricFamily
            names = [*self._labels, *([extra[0]] if extra else [])]
            family = kind(name, stat.help or f"{stat.name} of {self._row.name}", labels=names)
            found = self._numbers[stat.name] = family, factor
            self.made[name] = family
        value = _FLAGS[text] if text in _FLAGS else float(text)
        found[0].add_metric([*labels, extra[1]] if extra else labels, value * found[1])

    def _name(self, key: str, unit: str) -> str:
        parts = [self._row.name.replace("uzswap.", ""), key.replace("uzswap.", "")]
        name = _NO_NAME.sub("_", "_".join(["uzswap", *filter(None, parts)])).lower()
        return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"

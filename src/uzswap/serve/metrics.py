"""Prometheus metrics, made from the table of control files: every number of every cgroup, and of the engine.

A metric is named after its file and key, with its unit at the end: ``uzswap_memory_current_bytes{cgroup="/jobs/a"}``,
``uzswap_memory_stat_zswpwb_pages_total``, ``uzswap_zswap_debug_pool_total_size_bytes``.  ``max`` is +Inf.

What never was anything but 0 is not said, nor is a limit that nobody set, and what two files of a cgroup tell is said
of the first: 1000 cgroups have 35 numbers each that hardly one of them has a use for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from math import isinf
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from uzswap.cgroup.stat import Stat
from uzswap.files.engine import ENGINE_FILES
from uzswap.files.file import FileType
from uzswap.files.histograms import parse_series
from uzswap.files.snapshot import take

if TYPE_CHECKING:
    from uzswap.files.view import EngineView

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("metrics need prometheus-client: pip install 'uzswap[metrics]'") from error

__all__ = ["BUCKETS", "Buckets", "ZswapCollector", "exposition"]

#: which buckets of histograms are said: every fourth power of two, all that the data plane has, or sum and count only
Buckets = Literal["some", "all", "none"]

#: the same, the default first
BUCKETS: Final[tuple[Buckets, ...]] = ("some", "all", "none")

_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_]+")
_INFINITE: Final = float("inf")
_FLAGS: Final = {"Y": 1.0, "N": 0.0, "max": _INFINITE}
#: units that Prometheus has its own name for; a kB is 1024 bytes, as in /proc/meminfo
_UNITS: Final = {
    "kB": ("bytes", 1024.0),
    "us": ("seconds", 1e-6),
    "ns": ("seconds", 1e-9),
    "percent": ("percent", 1.0),
    "bool": ("", 1.0),
}
#: keys of memory.stat that a file of their own tells too
_SAID_ELSEWHERE: Final = frozenset(
    ("anon", "inactive_anon", "kernel", "zswap", "uzswap.disk", "uzswap.clean_copies", "uzswap.same_filled")
)
#: in a label (Prometheus' text format)
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(slots=True)
class _Family:
    """One metric: samples in bulk."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    #: labels beside the engine's own
    labels: tuple[str, ...]
    #: (values of these labels, number)
    samples: list[tuple[tuple[str, ...], float]] = field(default_factory=list)
    #: (values of these labels, buckets, sum) of a histogram
    histograms: list[tuple[tuple[str, ...], list[tuple[str, int]], float]] = field(default_factory=list)


def exposition(
    engine: EngineView, accept: str = "", *, zeros: bool = False, buckets: Buckets = "some"
) -> tuple[bytes, str]:
    """Return the metrics of an engine as text and its content type, in the format that ``accept`` asks for.

    What is no format is taken for none.

    Parameters
    ----------
    zeros
        Say what is 0 or unlimited as well.
    buckets
        Which buckets of histograms to say.
    """
    try:
        _, content_type = choose_encoder(accept)
    except (ValueError, TypeError):
        _, content_type = choose_encoder("")
    is_open = content_type.startswith("application/openmetrics-text")
    text = "".join(
        _written(name, family, is_open=is_open) for name, family in _families(engine, zeros=zeros, buckets=buckets)
    )
    return (text + "# EOF\n" if is_open else text).encode(), content_type


class ZswapCollector(Collector):
    """Reads every file at every scrape; register it with a registry to have an engine beside other metrics.

    Parameters
    ----------
    engine
        A Zswap.
    labels
        Put on every sample, to tell several engines of a process apart.
    zeros, buckets
        As :func:`exposition`.
    """

    def __init__(
        self,
        engine: EngineView,
        labels: dict[str, str] | None = None,
        *,
        zeros: bool = False,
        buckets: Buckets = "some",
    ) -> None:
        self._engine = engine
        self._labels = labels or {}
        self._zeros = zeros
        self._buckets: Buckets = buckets

    def describe(self) -> list[Metric]:
        """Return nothing: what there is turns up when it is collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each number of each file, with a sample for each cgroup that has the file."""
        mine = tuple(self._labels.values())
        for name, family in _families(self._engine, zeros=self._zeros, buckets=self._buckets):
            labels = [*self._labels, *family.labels]
            if family.kind == "histogram":
                made = HistogramMetricFamily(name, family.help, labels=labels)
                for values, classes, total in family.histograms:
                    made.add_metric([*mine, *values], classes, total)
                yield made
            else:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metric = kind(name, family.help, labels=labels)
                for values, number in family.samples:
                    metric.add_metric([*mine, *values], number)
                yield metric


def _families(engine: EngineView, *, zeros: bool, buckets: Buckets) -> Iterator[tuple[str, _Family]]:
    """Yield every metric with its name, those of cgroups first."""
    yield from _of_cgroups(engine, zeros=zeros).items()
    for row in ENGINE_FILES.values():
        yield from _of_engine(engine, row, buckets).items()


def _of_cgroups(engine: EngineView, *, zeros: bool) -> dict[str, _Family]:
    snapshot = take(engine.tree.root)
    paths = [_text(cgroup.path) for cgroup in snapshot.cgroups]
    found: dict[str, _Family] = {}
    for file, key, label, numbers, told in snapshot.columns():
        if file.name == "memory.stat" and key.name in _SAID_ELSEWHERE:
            continue
        name, factor = _named(file.name, key.name, key.unit)
        family = found.get(name)
        if family is None:
            labels = ("cgroup", label[0]) if label else ("cgroup",)
            family = found[name] = _Family(_kind(key), key.help or f"{key.name} of {file.name}", labels)
        if zeros:
            told = np.ones(len(paths), bool) if file.on_root else np.arange(len(paths)) > 0
        where = np.flatnonzero(told).tolist()
        values = (numbers if factor == 1.0 else numbers * factor)[where].tolist()
        more = (label[1],) if label else ()
        family.samples += [((paths[i], *more), value) for i, value in zip(where, values, strict=True)]
    return {name: family for name, family in found.items() if family.samples}


def _of_engine(engine: EngineView, row: FileType[Any], buckets: Buckets) -> dict[str, _Family]:
    """Return the metrics of one file of the engine."""
    if row.shape in ("json", "table"):
        return {}
    text = row.read(engine, engine.tree.root)
    alone = Stat("", row.unit, row.counter, row.help)
    if row.shape in ("value", "limit", "flag"):
        return dict([_one(row, alone, text.strip())])
    if row.shape == "word":
        name, _ = _named(row.name, "info", "")
        return {name: _Family("gauge", row.help, ("value",), [((text.strip(),), 1)])}
    if row.shape == "flat_keyed":
        keys = {key.name: key for key in row.keys}
        pairs = (line.split()[:2] for line in text.splitlines())
        return dict(
            _one(row, keys.get(key) or Stat(key, row.unit or "entries", help=row.help), value)
            for key, value in ((key.rstrip(":"), value) for key, value in pairs)
        )
    if row.shape == "histogram":
        name, factor = _named(row.name, "", row.unit)
        family = _Family("histogram", row.help, ("series",))
        for series in parse_series(text):
            family.histograms.append(((series.name,), _buckets(series.classes, factor, buckets), series.sum * factor))
        return {name: family}
    return {}


def _one(row: FileType[Any], stat: Stat, text: str) -> tuple[str, _Family]:
    name, factor = _named(row.name, stat.name, stat.unit)
    number = _FLAGS[text] if text in _FLAGS else float(text)
    return name, _Family(_kind(stat), stat.help or f"{stat.name} of {row.name}", (), [((), number * factor)])


def _buckets(classes: Iterable[tuple[float, int]], factor: float, which: Buckets) -> list[tuple[str, int]]:
    """Return (at most, how many are) of a histogram, as Prometheus counts: with all that are smaller."""
    found: list[tuple[str, int]] = []
    so_far = 0
    for position, (bound, count) in enumerate(classes):
        so_far += count
        if isinf(bound):
            found.append(("+Inf", so_far))
        elif which == "all" or (which == "some" and position % 4 == 3):
            found.append((repr(bound * factor), so_far))
    return found


def _kind(stat: Stat) -> Literal["counter", "gauge"]:
    return "counter" if stat.counter else "gauge"


@cache
def _named(file: str, key: str, unit: str) -> tuple[str, float]:
    """Return the name of a metric, and what its numbers are multiplied by."""
    unit, factor = _UNITS.get(unit, (unit, 1.0))
    parts = [file.replace("uzswap.", ""), key.replace("uzswap.", "")]
    name = _NO_NAME.sub("_", "_".join(["uzswap", *filter(None, parts)])).lower()
    return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}", factor


@lru_cache(maxsize=1 << 14)
def _text(path: str) -> str:
    """Return a path as a label: a name may have bytes that are no text, a label may not."""
    return os.fsencode(path).decode(errors="backslashreplace")


@lru_cache(maxsize=1 << 15)
def _labelled(labels: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Return the labels of a sample as text."""
    pairs = [f'{label}="{value.translate(_ESCAPES)}"' for label, value in zip(labels, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _written(name: str, family: _Family, *, is_open: bool) -> str:
    """Return a metric as text, in Prometheus' format or OpenMetrics."""
    described = name if is_open or family.kind != "counter" else f"{name}_total"
    help_text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if is_open:
        help_text = help_text.replace('"', r"\"")
    lines = [f"# HELP {described} {help_text}\n# TYPE {described} {family.kind}\n"]
    sample = f"{name}_total" if family.kind == "counter" else name
    labels = family.labels
    if any(number == _INFINITE for _, number in family.samples):
        lines += [f"{sample}{_labelled(labels, values)} {_number(number)}\n" for values, number in family.samples]
    else:
        lines += [f"{sample}{_labelled(labels, values)} {number}\n" for values, number in family.samples]
    for values, classes, total in family.histograms:
        for bound, count in classes:
            lines.append(f"{name}_bucket{_labelled((*labels, 'le'), (*values, bound))} {count}\n")
        lines.append(f"{name}_count{_labelled(labels, values)} {classes[-1][1]}\n")
        lines.append(f"{name}_sum{_labelled(labels, values)} {_number(total)}\n")
    return "".join(lines)


def _number(number: float) -> str:
    return "+Inf" if number == _INFINITE else repr(number)

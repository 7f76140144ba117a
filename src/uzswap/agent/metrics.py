"""Decisions as numbers, for Prometheus: on a port of localhost, or in a file for node_exporter's textfile collector."""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from uzswap.agent.policies.policy import MEMORY, RECOMPRESS, ZSWAP

if TYPE_CHECKING:
    from uzswap.agent.records import Record

__all__ = ["Metrics"]

_NAMES: Final = {MEMORY: "memory", ZSWAP: "zswap", RECOMPRESS: "recompress"}


class Metrics:
    """Counts decisions.  For one thread; scrapes may come from others."""

    def __init__(self) -> None:
        #: (cgroup, stage, gate), (cgroup, stage, errno) and so on
        self._decisions: Counter[tuple[str, str, str]] = Counter()
        self._asked: Counter[tuple[str, str]] = Counter()
        self._done: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[tuple[str, str, str]] = Counter()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.watched = 0
        self.budget = 0

    def add(self, record: Record) -> None:
        """Count a decision."""
        key = (record.cgroup, _NAMES[record.stage])
        self._decisions[(*key, record.gate)] += 1
        if record.asked:
            self._asked[key] += record.asked
            self._done[key] += record.done
            self._seconds[key] += record.seconds
        if record.errno:
            self._errors[(*key, errno.errorcode.get(record.errno, str(record.errno)))] += 1

    def forget(self, cgroup: str) -> None:
        """Drop the series of a cgroup that is gone."""
        for counter in (self._decisions, self._asked, self._done, self._errors, self._seconds):
            _drop(counter, cgroup)

    def samples(self) -> Iterator[tuple[str, str, str, tuple[str, ...], list[tuple[tuple[str, ...], float]]]]:
        """Yield (name, type, help, labels, values)."""
        two, three = ("cgroup", "stage"), ("cgroup", "stage", "gate")
        rows: tuple[tuple[str, str, tuple[str, ...], dict[Any, Any]], ...] = (
            ("decisions", "Decisions, by what decided.", three, self._decisions),
            ("asked_bytes", "Bytes asked of memory.reclaim.", two, self._asked),
            ("done_bytes", "Bytes that it reclaimed or wrote back.", two, self._done),
            ("errors", "Requests that ended with an errno; EAGAIN is success in part.", (*two, "errno"), self._errors),
            ("request_seconds", "Time of requests.", two, self._seconds),
        )
        for name, text, labels, counter in rows:
            yield f"uzswap_agent_{name}", "counter", text, labels, sorted(dict(counter).items())
        yield "uzswap_agent_cgroups", "gauge", "Cgroups looked after.", (), [((), self.watched)]
        yield "uzswap_agent_write_budget_bytes", "gauge", "What may be written now.", (), [((), self.budget)]

    def serve(self, port: int) -> Any:
        """Serve them on a port of localhost; returns (server, thread).

        Raises
        ------
        ImportError
            prometheus-client is not there.
        """
        try:
            from prometheus_client import CollectorRegistry, start_http_server
            from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
            from prometheus_client.registry import Collector
        except ImportError as error:
            raise ImportError("metrics need prometheus-client: pip install 'uzswap[metrics]'") from error
        mine = self

        class OfAgent(Collector):
            def describe(self) -> list[Metric]:
                return []

            def collect(self) -> Iterator[Metric]:
                for name, kind, text, labels, values in mine.samples():
                    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
                        name, text, labels=labels
                    )
                    for key, value in values:
                        family.add_metric(key, value)
                    yield family

        registry = CollectorRegistry(auto_describe=False)
        registry.register(OfAgent())
        return start_http_server(port, addr="127.0.0.1", registry=registry)


def _drop(series: dict[Any, Any], cgroup: str) -> None:
    for key in [key for key in series if key[0] == cgroup]:
        del series[key]

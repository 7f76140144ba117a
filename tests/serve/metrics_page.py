"""docs/metrics.md, made from what is exported: ``python -m tests.serve.metrics_page > docs/metrics.md``."""

from __future__ import annotations

import re
import sys

from uzswap import Zswap
from uzswap.serve.metrics import exposition

_ABOUT = """# Metrics

`GET /metrics` on the socket, or on a port of localhost (`z.serve(port=...)`, `metrics_port` of `uzswap run`), in
Prometheus' format or OpenMetrics. Names are the control files' and their keys, with the unit at the end; a page is 4096
bytes. What is 0 and always was is left out, and so is a limit that nobody set: `?zeros=1` has it too. `?buckets=all`
has every bucket of the histograms, `none` sum and count only.

[grafana/uzswap.json](grafana/uzswap.json) is a dashboard for Grafana (Dashboards, New, Import),
[grafana/alerts.yml](grafana/alerts.yml) has alert rules for Prometheus (`rule_files:`).

| name | type | labels | is |
|---|---|---|---|
"""


def metrics(z: Zswap) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return type, labels and help of every metric that an engine exports."""
    text = exposition(z, zeros=True, buckets="all")[0].decode()
    helps = dict(re.findall(r"(?m)^# HELP (\w+) (.*)$", text))
    kinds = re.findall(r"(?m)^# TYPE (\w+) (\w+)$", text)
    found = {}
    for name, kind in kinds:
        sample = re.search(rf"(?m)^{name}(?:_bucket)?(?:{{(.*)}})? ", text)
        labels = re.findall(r'(\w+)="', sample[1] or "") if sample else []
        found[name] = (kind, tuple(labels), helps[name])
    return found


def page(z: Zswap) -> str:
    """Return the page."""
    rows = (
        f"| `{name}` | {kind} | {', '.join(labels)} | {text.replace('|', chr(92) + '|')} |\n"
        for name, (kind, labels, text) in metrics(z).items()
    )
    return _ABOUT + "".join(rows)


if __name__ == "__main__":
    with Zswap(swap_size="16M") as engine:
        engine.cgroup("/a")
        sys.stdout.write(page(engine))

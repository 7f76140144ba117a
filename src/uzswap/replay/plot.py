"""Saved memory against time lost: a point for each policy, the best possible as a line, a panel for each trace."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import matplotlib as mpl
from matplotlib.figure import Figure

from uzswap.replay.run import Outcome

__all__ = ["plot"]

#: lost shares below this are shown as this: the axis is logarithmic
_LEAST = 1e-6


def plot(outcomes: Sequence[Outcome], path: str) -> None:
    """Draw a file; its ending says in which format.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        matplotlib knows no such format.
    """
    groups = [list(group) for _, group in groupby(outcomes, key=lambda one: one.case.trace)]
    with mpl.rc_context({"svg.hashsalt": "uzswap", "font.size": 9}):
        figure = Figure(figsize=(3.4 * len(groups) + 0.6, 3.4), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        policies = list(dict.fromkeys(one.case.policy for one in outcomes))
        for panel, group in zip(panels, groups, strict=True):
            lost, saved = zip(*group[0].curve, strict=True)
            panel.plot([100 * x for x in lost], [100 * y for y in saved], color="0.5", label="best possible (Belady)")
            for number, policy in enumerate(policies):
                points = [one for one in group if one.case.policy == policy]
                panel.plot(
                    [100 * max(one.lost_share, _LEAST) for one in points],
                    [100 * one.saved_share for one in points],
                    "osD^vP*"[number % 7],
                    label=policy,
                )
            panel.axvline(1.0, color="0.8", linestyle=":")
            panel.set_xscale("log")
            panel.set_xlim(100 * _LEAST, 10)
            panel.set_ylim(0, 100)
            panel.set_title(group[0].case.trace.rpartition("/")[2].split(".")[0])
            panel.set_xlabel("time lost, %")
        panels[0].set_ylabel("memory saved, %")
        panels[-1].legend(loc="lower right", fontsize=7)
        metadata = {"Date": None} if path.endswith(".svg") else None
        figure.savefig(path, metadata=metadata)

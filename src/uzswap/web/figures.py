"""The plots of the page, made with bokeh and sent as JSON; the page fills their sources by name.

Each has a light and a dark form, from which the page takes what the browser prefers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bokeh.core.types import ID
from bokeh.document import Document
from bokeh.embed import json_item
from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    DataRange1d,
    DatetimeTicker,
    FactorRange,
    HoverTool,
    LinearAxis,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.plotting import figure
from bokeh.themes import Theme

from uzswap.web.history import FIELDS

__all__ = ["FIGURES", "items"]

#: of Okabe and Ito (2008): told apart by everybody, on white and on black
_RESIDENT: Final = "#0072B2"
_ZSWAP: Final = "#009E73"
_DISK: Final = "#999999"
_RATIO: Final = "#D55E00"
_TOOLS: Final = "xpan,xwheel_zoom,reset"
_COLOURS: Final = {
    "light": {"paper": "#ffffff", "ink": "#222222", "grid": "#e5e5e5"},
    "dark": {"paper": "#161b22", "ink": "#d0d7de", "grid": "#30363d"},
}
#: sizes with binary units; a formatter of bokeh's own, since code of ours would have to be eval-ed
_BYTES: Final = "0.[0] ib"


def _theme(mode: str) -> Theme:
    colours = _COLOURS[mode]
    text = {"text_color": colours["ink"]}
    return Theme(
        json={
            "attrs": {
                "Plot": {
                    "background_fill_color": colours["paper"],
                    "border_fill_color": colours["paper"],
                    "outline_line_color": colours["grid"],
                },
                "Grid": {"grid_line_color": colours["grid"]},
                "Axis": {
                    "axis_line_color": colours["ink"],
                    "major_tick_line_color": colours["ink"],
                    "minor_tick_line_color": None,
                    "major_label_text_color": colours["ink"],
                    "axis_label_text_color": colours["ink"],
                    "major_label_text_font_size": "11px",
                },
                "Legend": {
                    "background_fill_alpha": 0.0,
                    "border_line_alpha": 0.0,
                    "label_text_color": colours["ink"],
                    "label_text_font_size": "11px",
                    "location": "top_left",
                    "orientation": "horizontal",
                    "padding": 0,
                    "spacing": 8,
                },
                "Title": text,
            }
        }
    )


def _over_time(name: str, height: int, **more: Any) -> figure:
    made = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        tools=_TOOLS,
        toolbar_location=None,
        active_scroll=None,
        min_border=2,
        y_range=DataRange1d(start=0),
        **more,
    )
    made.xaxis[0].ticker = DatetimeTicker(desired_num_ticks=4)
    return made


def _in_bytes(plot: figure) -> None:
    """Have the first y axis count bytes."""
    axis = plot.yaxis[0]
    axis.ticker = AdaptiveTicker(base=1024, mantissas=[2**n for n in range(10)], min_interval=1, desired_num_ticks=5)
    axis.formatter = NumeralTickFormatter(format=_BYTES)


def _history(extra: tuple[str, ...] = ()) -> ColumnDataSource:
    return ColumnDataSource({name: [] for name in ("time", *FIELDS, *extra)}, name="history")


def _memory() -> figure:
    plot = _over_time("memory", 260)
    source = _history()
    plot.varea_stack(
        ["resident", "zswap", "disk"],
        x="time",
        source=source,
        color=[_RESIDENT, _ZSWAP, _DISK],
        alpha=0.75,
        legend_label=["resident", "zswap", "disk"],
    )
    limits = ColumnDataSource({"y": [], "name": [], "left": [], "right": []}, name="limits")
    plot.segment(x0="left", x1="right", y0="y", y1="y", source=limits, color=_RATIO, line_dash="dashed", line_width=1.5)
    plot.text(x="left", y="y", text="name", source=limits, text_color=_RATIO, text_font_size="11px")
    _in_bytes(plot)
    return plot


def _savings() -> figure:
    plot = _over_time("savings", 180)
    source = _history(("saved", "ratio"))
    plot.varea(x="time", y1=0, y2="saved", source=source, color=_ZSWAP, alpha=0.5, legend_label="saved")
    plot.extra_y_ranges = {"ratio": Range1d(start=0, end=4, name="ratios")}
    plot.line(
        x="time", y="ratio", source=source, color=_RATIO, y_range_name="ratio", legend_label="ratio", line_width=1.5
    )
    plot.add_layout(LinearAxis(y_range_name="ratio"), "right")
    _in_bytes(plot)
    return plot


def _lines(name: str, fields: dict[str, tuple[str, str]]) -> figure:
    plot = _over_time(name, 150)
    source = _history()
    for field, (legend, colour) in fields.items():
        plot.line(x="time", y=field, source=source, color=colour, legend_label=legend, line_width=1.5)
    return plot


def _refaults() -> figure:
    fields = {"refaults_zswap": ("from zswap", _ZSWAP), "refaults_disk": ("from disk", _RATIO)}
    return _lines("refaults", fields)


def _pressure() -> figure:
    return _lines("pressure", {"pressure": ("some, avg10, percent", _RATIO)})


def _writes() -> figure:
    plot = _lines("writes", {"written": ("written a second", _DISK)})
    _in_bytes(plot)
    budget = ColumnDataSource({"left": [], "right": [], "y": []}, name="budget")
    plot.segment(x0="left", x1="right", y0="y", y1="y", source=budget, color=_RATIO, line_dash="dashed")
    return plot


def _treemap() -> figure:
    plot = figure(
        name="treemap",
        height=260,
        sizing_mode="stretch_width",
        x_range=Range1d(start=0, end=2),
        y_range=Range1d(start=0, end=1),
        tools="tap",
        toolbar_location=None,
        min_border=0,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    names = ("left", "right", "bottom", "top", "cgroup", "colour", "label", "told", "x", "y")
    source = ColumnDataSource({name: [] for name in names}, name="rectangles")
    quads = plot.quad(
        left="left",
        right="right",
        bottom="bottom",
        top="top",
        source=source,
        fill_color="colour",
        line_color="#88888880",
        nonselection_fill_alpha=1.0,
    )
    plot.text(
        x="x", y="y", text="label", source=source, text_font_size="11px", text_color="#ffffff", x_offset=4, y_offset=16
    )
    plot.add_tools(HoverTool(renderers=[quads], tooltips=[("", "@cgroup"), ("", "@told")]))
    return plot


def _ages() -> figure:
    plot = figure(
        name="ages",
        height=180,
        sizing_mode="stretch_width",
        x_range=FactorRange(),
        y_range=DataRange1d(start=0),
        tools="",
        toolbar_location=None,
        min_border=2,
    )
    source = ColumnDataSource({"age": [], "bytes": [], "colour": []}, name="by_age")
    plot.vbar(x="age", top="bytes", width=0.9, source=source, color="colour", line_color=None)
    _in_bytes(plot)
    plot.xaxis.major_label_orientation = 0.9
    plot.xgrid.visible = False
    return plot


#: by the element of the page that it goes into
FIGURES: Final[dict[str, Callable[[], figure]]] = {
    "memory": _memory,
    "savings": _savings,
    "treemap": _treemap,
    "ages": _ages,
    "refaults": _refaults,
    "writes": _writes,
    "pressure": _pressure,
}


def items() -> dict[str, list[Any]]:
    """Return what BokehJS embeds: for "light" and "dark" an item for each figure."""
    found: dict[str, list[Any]] = {}
    for mode in _COLOURS:
        theme = _theme(mode)
        found[mode] = []
        for target, make in FIGURES.items():
            plot = make()
            Document().add_root(plot)
            found[mode].append(json_item(plot, ID(target), theme=theme))
    return found

"""A page of Dask's own dashboard, ``/uzswap``: where the bytes of each worker are, over time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from bokeh.layouts import column
from bokeh.models import AdaptiveTicker, ColumnDataSource, DataRange1d, Div, NumeralTickFormatter
from bokeh.plotting import figure
from bokeh.server.tornado import BokehTornado
from distributed.dashboard.components import DashboardComponent, add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from tornado.ioloop import IOLoop

from uzswap.dask.heartbeat import METRIC

if TYPE_CHECKING:
    from distributed import Scheduler

__all__ = ["PATH", "Chart", "page", "show"]

PATH: Final = "/uzswap"

#: milliseconds from one look to the next: Dask's heartbeat is not faster
_EVERY: Final = 500
#: looks that are kept: ten minutes
_KEPT: Final = 1200
#: of an axis of bytes
_TICKS: Final = {"base": 1024, "mantissas": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], "desired_num_ticks": 4}
#: tier -> colour, from memory to disk
TIERS: Final = {"resident": "#4c72b0", "zswap": "#dd8452", "disk": "#8c8c8c"}


class Chart(DashboardComponent):
    """A stacked area for each worker: resident, compressed in memory, on the disk."""

    def __init__(self, scheduler: Scheduler, **options: Any) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.options = options
        self.sources: dict[str, ColumnDataSource] = {}
        self.source = ColumnDataSource({"time": []})
        self.nothing = Div(text="No worker has uzswap's memory: LocalCluster(data=(uzswap.dask.WorkerMemory, {})).")
        self.root = column(self.nothing, sizing_mode="stretch_width")
        self.range = DataRange1d(follow="end", follow_interval=120_000, range_padding=0)

    def update(self, messages: Any = None) -> None:
        """Take what the last heartbeats said."""
        now = time.time() * 1000
        present = {}
        for address, state in self.scheduler.workers.items():
            told = state.metrics.get(METRIC)
            if told:
                present[address] = told
        if set(present) != set(self.sources):
            self._lay_out(list(present))
        for address, told in present.items():
            row = {"time": [now], **{tier: [told[tier]] for tier in TIERS}}
            self.sources[address].stream(row, rollover=_KEPT)

    def _lay_out(self, addresses: list[str]) -> None:
        """One figure a worker; those that stay keep what they have shown."""
        self.sources = {
            # With lists of its own: a source streams into those that it is given.
            one: self.sources.get(one) or ColumnDataSource({name: [] for name in ("time", *TIERS)})
            for one in addresses
        }
        self.root.children = [self._figure(one) for one in addresses] or [self.nothing]

    def _figure(self, address: str) -> Any:
        made = figure(
            title=address, x_axis_type="datetime", x_range=self.range, height=160, tools="xpan,xwheel_zoom,reset",
            sizing_mode="stretch_width", **self.options,
        )  # fmt: skip
        made.varea_stack(
            list(TIERS), x="time", color=list(TIERS.values()), source=self.sources[address], legend_label=list(TIERS)
        )
        made.yaxis[0].formatter = NumeralTickFormatter(format="0b")
        made.yaxis[0].ticker = AdaptiveTicker(**_TICKS)
        made.y_range.start = 0
        made.legend.location = "bottom_left"
        made.legend.orientation = "horizontal"
        made.legend.background_fill_alpha = 0.7
        made.legend.padding = made.legend.margin = 4
        return made


def page(scheduler: Scheduler, extra: dict[str, Any], doc: Any) -> None:
    """Fill one document, as Dask's own pages are filled."""
    doc.title = "Dask: uzswap"
    chart = Chart(scheduler)
    add_periodic_callback(doc, chart, _EVERY)
    chart.update()
    doc.add_root(chart.root)
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


def show(scheduler: Scheduler) -> bool:
    """Add the page to a scheduler's dashboard; False where there is none.  Again, it does nothing."""
    boards = [one for one in scheduler.http_application.applications if isinstance(one, BokehTornado)]
    if not boards:
        return False
    if any(PATH in one.app_paths for one in boards):
        return True
    shared = template_variables(scheduler)
    name = PATH.strip("/")
    if name not in shared["pages"]:
        shared["pages"].append(name)  # in the bar of every page
    made = BokehApplication({PATH: page}, scheduler, prefix=boards[0].prefix, template_variables=shared)
    scheduler.http_application.add_application(made)
    made.initialize(IOLoop.current())
    return True

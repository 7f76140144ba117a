"""What time a replay has, and what a page costs that comes back.

**Time.**  A trace with timestamps is replayed as it was.  One without (block numbers, instructions) says in which order
things happened, not how fast: it is laid over a day, in its own proportions.  That is what an agent is for, which acts
within minutes on what changes within hours, and it is what these traces stand for: sprite is two days of a file server
(Jiang and Zhang, LIRS, SIGMETRICS'02).

**Costs.**  A page from zswap takes 40 us, one from the device 470 us: p90 of TMO's compressed memory and of its fastest
SSD (Weiner et al., ASPLOS'22, section 3).  Pages that one record of a trace asks for come from the device in reads of
up to eight (the kernel's vm.page-cluster = 3), so each costs its part of one.  A workload waits for each, one after the
other; what the agent itself computes is not the workload's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uzswap.agent.settings import setting
from uzswap.replay.traces import Trace

__all__ = ["Costs", "laid_out"]

#: pages: 1 << vm.page-cluster
_CLUSTER: Final = 8


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds."""

    zswap: float = setting(40e-6, "seconds", "that a page from zswap takes")
    disk: float = setting(470e-6, "seconds", "that a read of the device takes")
    #: of a trace without a clock
    duration: float = setting(86400.0, "seconds", "that a trace without a clock is laid over")

    def of_disk(self, together: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what each access costs if its page is on the device."""
        return self.disk / np.minimum(together, _CLUSTER)


def laid_out(trace: Trace, costs: Costs) -> NDArray[np.float64]:
    """Return the time of each access in seconds, from 0 on."""
    span = float(trace.times[-1])
    if trace.timed and span > 0:
        return trace.times
    if span <= 0:
        return np.linspace(0.0, costs.duration, len(trace.times))
    return trace.times * (costs.duration / span)

"""An engine as those see it who own memory in its cgroups: what stores and arrays may ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.core.boundary.engine import Engine, Handles
    from uzswap.core.boundary.values import Batch
    from uzswap.engine.lifetime import Lifetime
    from uzswap.engine.paging import AnyBuffer, Place
    from uzswap.engine.parameters import Parameters
    from uzswap.reclaim.heap import HeapTrim
    from uzswap.reclaim.limits import ResidentOwner

__all__ = ["FrontEndHost", "host_of"]


class FrontEndHost(Protocol):
    """What :class:`uzswap.Zswap` offers to front-ends; its methods say what each does and raises."""

    @property
    def core(self) -> Engine: ...

    @property
    def parameters(self) -> Parameters: ...

    @property
    def lifetime(self) -> Lifetime: ...

    @property
    def closing(self) -> bool: ...

    @property
    def heap(self) -> HeapTrim: ...

    def has_paged_memory(self) -> bool: ...

    def is_paged(self, address: int) -> bool: ...

    def flush_work(self) -> None: ...

    def register(self, owner: ResidentOwner) -> None: ...

    def unregister(self, owner: ResidentOwner) -> None: ...

    def charge(self, memcg: MemCgroup, nbytes: int, *, force: bool = False) -> None: ...

    def uncharge(self, memcg: MemCgroup, nbytes: int) -> None: ...

    def swap_out_many(
        self,
        data: AnyBuffer,
        cgroup: MemCgroup,
        page: int = ...,
        node: int = 0,
        *,
        folio: int = 1,
        compressor: str | None = None,
        filter: int = 0,
    ) -> Handles: ...

    def swap_out_chunks(
        self, data: AnyBuffer, cgroup: MemCgroup, page: int, codec: int, filter: int, flags: int
    ) -> Handles: ...

    def swap_out_batch(self, batch: Batch, cgroup: MemCgroup) -> None: ...

    def load_error(self, number: int, handle: int) -> OSError: ...

    def fault_in_many(
        self, handles: ArrayLike, out: AnyBuffer | None = None, page: int = ..., *, consume: bool = True
    ) -> NDArray[Any]: ...

    def free_many(self, handles: ArrayLike) -> None: ...

    def where(self, handle: int) -> Place: ...


def host_of(cgroup: MemCgroup) -> FrontEndHost:
    """Return the engine of a cgroup; cgroups themselves know less of it (:mod:`uzswap.cgroup.surroundings`)."""
    return cast(FrontEndHost, cgroup.zswap)

"""zarr's own tests of stores, unmodified; test_store.py runs them in a process of its own, with pytest-asyncio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import zarr.testing.store
from hypothesis.stateful import run_state_machine_as_test
from tests.support.soak import longer
from zarr.core.buffer import Buffer, cpu
from zarr.core.sync import sync
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine

import uzswap
import uzswap.zarr
from uzswap.caches import Bounded


@pytest.fixture
def z() -> Iterator[uzswap.Zswap]:
    with uzswap.Zswap(swap_size="64M") as z:
        yield z
        z.check()


class TestOfACgroup(zarr.testing.store.StoreTests[uzswap.zarr.Store, cpu.Buffer]):
    store_cls = uzswap.zarr.Store
    buffer_cls = cpu.Buffer

    async def set(self, store: uzswap.zarr.Store, key: str, value: Buffer) -> None:
        store.mapping[key] = value.to_bytes()
        self.cool(store)

    async def get(self, store: uzswap.zarr.Store, key: str) -> Buffer:
        self.cool(store)
        return self.buffer_cls.from_bytes(store.mapping[key])

    def cool(self, store: uzswap.zarr.Store) -> None:
        """Have everything compressed: as large as it is, nothing would be."""
        assert isinstance(store.mapping, uzswap.Store)
        store.mapping.reclaim("1G")

    @pytest.fixture
    def store_kwargs(self, z: uzswap.Zswap) -> dict[str, Any]:
        return {"where": z.cgroup("/zarr")}

    def test_store_repr(self, store: uzswap.zarr.Store) -> None:
        assert repr(store).startswith("uzswap.zarr.Store(<Store of /zarr: ")

    def test_store_supports_writes(self, store: uzswap.zarr.Store) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: uzswap.zarr.Store) -> None:
        assert store.supports_listing


class TestOfACache(TestOfACgroup):
    @pytest.fixture
    def store_kwargs(self, z: uzswap.Zswap) -> dict[str, Any]:
        return {"where": Bounded(uzswap.Store(z.cgroup("/zarr")), memory="16M")}

    def cool(self, store: uzswap.zarr.Store) -> None:
        assert isinstance(store.mapping, Bounded)
        store.mapping.below.reclaim("1G")

    def test_store_repr(self, store: uzswap.zarr.Store) -> None:
        assert repr(store).startswith("uzswap.zarr.Store(Bounded(<Store of /zarr: ")


#: few examples, since each step goes through zarr's event loop; make soak ALL=1 tries more
EXAMPLES = longer({"max_examples": 8, "stateful_step_count": 12}, {"max_examples": 200, "stateful_step_count": 50})
#: machine -> whether it is a test of make soak ALL=1 alone
MACHINES = {ZarrStoreStateMachine: False, ZarrHierarchyStateMachine: True}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_state_machine(z: uzswap.Zswap, machine: Any) -> None:
    if MACHINES[machine] and not longer(False, True):
        pytest.skip("seconds an example: make soak ALL=1")
    group = z.cgroup("/zarr")
    group.write("uzswap.resident.max", "4K")  # so that values come and go
    store = sync(uzswap.zarr.Store.open(group))
    settings = hypothesis.settings(
        **EXAMPLES,
        deadline=None,
        derandomize=not longer(False, True),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(lambda: machine(store), settings=settings)

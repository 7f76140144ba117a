"""Copies of structures that name an engine, a cgroup or a store."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from uzswap import Store

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


def test_what_names_a_cgroup_or_an_engine_can_be_copied_and_names_the_same(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a/b")
    settings = {"cgroup": cgroup, "engine": z, "paths": [cgroup.path, [cgroup]]}
    for copied in (copy.deepcopy(settings), copy.copy(settings)):
        assert copied == settings
        assert copied["cgroup"] is cgroup
        assert copied["engine"] is z
    assert copy.copy(cgroup) is cgroup
    assert copy.copy(z) is z
    with Store[str, Any](copy.deepcopy(cgroup)) as store:
        store["a"] = 1
        assert cgroup.usage() == store.resident_bytes


def test_a_store_is_not_copied_and_says_how_to_have_its_values(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = [1]
        for act in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"the store of /a can't be pickled or copied.*dict\(store\)"):
                act(store)
        copied = copy.deepcopy(dict(store))
        assert copied == {"a": [1]}
        assert copied["a"] is not store["a"]


def test_none_of_them_is_pickled(engine: EngineFactory) -> None:
    z = engine()
    with pytest.raises(TypeError, match="/a can't be pickled: it belongs to its engine"):
        pickle.dumps(z.cgroup("/a"))
    with pytest.raises(TypeError, match="an engine can't be pickled"):
        pickle.dumps([z])
    with Store[str, Any](z.cgroup("/a")) as store:
        store["a"] = [z.cgroup("/a"), bytearray(100_000)]
        store.reclaim(1 << 20)
        assert store.where("a") == "resident"

"""The dictionaries of a store: when one is made, replaced and given up, and that every value comes back."""

from __future__ import annotations

import errno
import os
import random
import threading

import numpy as np
import pytest
from tests.core.store.test_codecs import records, write_back
from tests.support.child import run

import uzswap
from uzswap.store import dictionaries
from uzswap.store.dictionaries import NO_CODEC, SMALL, Dictionaries


class Packer:
    """What a store does with its small values: sampled, stored in batches of 64 with the codec that there is."""

    def __init__(self, z: uzswap.Zswap, chosen: Dictionaries) -> None:
        self.z, self.chosen = z, chosen
        self.stored: list[tuple[int, bytes]] = []

    def pack(self, values: list[bytes]) -> None:
        handles = np.zeros(1, np.uint64)
        for i, value in enumerate(values):
            if self.chosen.sampling:
                self.chosen.sample(value)
            self.z.core.store(value, len(value), 0, 0, handles, codec=self.chosen.choose(len(value)))
            self.stored.append((int(handles[0]), value))
            if i % 64 == 63:
                self.chosen.after_batch()
        self.chosen.after_batch()
        self.chosen.flush()

    def load_all(self) -> None:
        for handle, value in self.stored:
            assert self.z.fault_in(handle) == value
        self.stored.clear()


@pytest.fixture
def z(engine) -> uzswap.Zswap:  # type: ignore[no-untyped-def]
    return engine(swap_size="64M")  # type: ignore[no-any-return]


@pytest.fixture
def chosen(z: uzswap.Zswap) -> Dictionaries:
    return Dictionaries(z)


@pytest.fixture
def packer(z: uzswap.Zswap, chosen: Dictionaries) -> Packer:
    return Packer(z, chosen)


def dictionaries_in(z: uzswap.Zswap) -> int:
    return sum(bool((info := z.core.codec_info(slot)) and info.dictionary) for slot in range(256))


def test_records_get_a_dictionary_and_are_three_times_smaller(packer: Packer, chosen: Dictionaries) -> None:
    packer.pack(records(2047))
    assert chosen.choose(500) == NO_CODEC
    packer.pack(records(1, 2))
    assert chosen.choose(500) == chosen.slot != NO_CODEC
    assert chosen.choose(SMALL + 1) == NO_CODEC
    assert not chosen.sampling
    packer.pack(records(3000, 3))
    info = packer.z.core.codec_info(chosen.slot)
    assert info is not None
    assert info.packed_bytes * 3 < info.given_bytes
    packer.load_all()
    chosen.close()
    assert dictionaries_in(packer.z) == 0


def test_values_that_change_get_a_new_one_and_the_old_lives_on(packer: Packer, chosen: Dictionaries) -> None:
    packer.pack(records(4000))
    first = chosen.slot
    packer.pack(records(1500, 4))
    packer.pack([os.urandom(90).hex().encode() for _ in range(4000)])
    assert chosen.trained > 1 or chosen.sampling
    packer.pack(records(6000, 5, "a kind that is all of its own"))
    assert chosen.trained > 1
    assert chosen.slot != first
    assert dictionaries_in(packer.z) >= 2
    write_back(packer.z.core)
    packer.load_all()
    assert dictionaries_in(packer.z) == 1
    chosen.close()


def test_what_has_nothing_in_common_is_left_to_the_compressor(packer: Packer, chosen: Dictionaries) -> None:
    packer.pack([os.urandom(300) for _ in range(3000)])
    packer.pack([os.urandom(300) for _ in range(3000)])
    assert chosen.slot == NO_CODEC
    trained = chosen.trained
    packer.pack([os.urandom(300) for _ in range(5000)])
    assert chosen.trained == trained  # it rests
    assert chosen.slot == NO_CODEC
    packer.load_all()
    assert dictionaries_in(packer.z) == 0
    chosen.close()


def test_samples_are_bounded_and_each_value_has_its_chance(chosen: Dictionaries) -> None:
    for i in range(20000):
        chosen.sample(i.to_bytes(8, "big"))
    chosen.sample(b"")
    chosen.sample(bytes(SMALL + 1))
    kept = [int.from_bytes(sample, "big") for sample in chosen._samples]
    assert len(kept) == dictionaries.MOST_SAMPLES
    assert 8000 < sum(kept) / len(kept) < 12000
    chosen.close()


def test_closing_is_final_and_may_be_repeated(packer: Packer, chosen: Dictionaries) -> None:
    packer.pack(records(2500))
    chosen.close()
    chosen.close()
    packer.pack(records(100))
    assert chosen.slot == NO_CODEC
    packer.load_all()
    assert dictionaries_in(packer.z) == 0


def test_an_engine_that_closes_first_is_no_trouble(packer: Packer, chosen: Dictionaries) -> None:
    packer.pack(records(2047))
    chosen.sample(b"one more")
    packer.z.close()
    chosen.after_batch()
    chosen.flush()
    assert chosen.slot == NO_CODEC
    chosen.close()


def test_an_engine_that_closes_takes_the_dictionary_with_it(packer: Packer, chosen: Dictionaries) -> None:
    packer.pack(records(2500))
    assert chosen.slot != NO_CODEC
    packer.z.close()
    chosen.close()
    assert chosen.slot == NO_CODEC


def test_without_slots_values_are_stored_as_ever(packer: Packer, chosen: Dictionaries) -> None:
    core = packer.z.core
    held = []
    while (slot := core.codec_get(uzswap.core.boundary.engine.LZ4, len(held) + 10)) >= 0:
        held.append(slot)
    assert slot == -errno.EBUSY
    packer.pack(records(3000))
    assert chosen.slot == NO_CODEC
    packer.load_all()
    for slot in held:
        core.codec_put(slot)
    chosen.close()


def test_threads_pack_while_dictionaries_change(z: uzswap.Zswap, chosen: Dictionaries) -> None:
    packers = [Packer(z, chosen) for _ in range(3)]
    wrong: list[BaseException] = []

    def work(packer: Packer, seed: int) -> None:
        try:
            for turn in range(5):
                packer.pack(records(1200, seed * 10 + turn, f"kind {turn}"))
                packer.load_all()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(packer, i)) for i, packer in enumerate(packers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert chosen.trained >= 1
    chosen.close()
    assert z.core.check() == []
    assert dictionaries_in(z) == 0


def test_the_samples_are_taken_away_while_a_value_is_shown(chosen: Dictionaries) -> None:
    class Meanwhile(random.Random):
        def randrange(self, *arguments: int) -> int:
            chosen._make()
            return min(super().randrange(*arguments), dictionaries.MOST_SAMPLES - 1)

    values = records(dictionaries.MOST_SAMPLES + 1, 1, "kind")
    for value in values[:-1]:
        chosen.sample(value)
    chosen._random = Meanwhile(0)
    chosen.sample(values[-1])
    assert chosen.trained == 1
    chosen.close()


def test_a_forked_child_closes_without_waiting_for_the_parents_threads() -> None:
    run(
        """
        import os
        import uzswap
        from tests.core.store.test_codecs import records
        from tests.store.test_dictionaries import Packer
        from uzswap.store.dictionaries import Dictionaries

        z = uzswap.Zswap(swap_size="64M")
        chosen = Dictionaries(z)
        packer = Packer(z, chosen)
        packer.pack(records(2500))
        with chosen._worker._changed:  # as a thread that the child does not have may have left it
            if not (child := os.fork()):
                chosen.close()
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        packer.load_all()
        chosen.close()
        z.close()
        """
    ).check()

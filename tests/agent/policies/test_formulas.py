"""Each policy against steps of its source's formula, worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from uzswap.agent.explain import GATES
from uzswap.agent.policies import POLICIES, farmem, idle, refault, senpai, tmo, twostage
from uzswap.agent.policies.policy import MEMORY, RECOMPRESS, ZSWAP, Histogram, Observation, Stall, opening

MIB = 1 << 20
GIB = 1 << 30
#: 10 GiB, all of it reclaimable
SEEN = Observation(time=0.0, current=10 * GIB, resident=10 * GIB, inactive=GIB, reclaimable=10 * GIB, budget=GIB)


def stalled(avg10: float, avg60: float = 0.0) -> Stall:
    return Stall(avg10, avg60, 0)


# The gate


@pytest.mark.parametrize(
    ("memory", "io", "expected"),
    [
        (0.0, 0.0, (1.0, "open")),
        (0.05, 0.0, (0.5, "open")),
        (0.05, 0.08, (0.2, "open")),
        (0.1, 0.0, (0.0, "memory pressure")),
        (0.0, 0.2, (0.0, "io pressure")),
        (0.3, 0.2, (0.0, "memory pressure")),
    ],
)
def test_the_gate_closes_with_pressure_as_tmo_s_formula_says(
    memory: float, io: float, expected: tuple[float, str]
) -> None:
    """max(0, 1 - PSI / 0.1), of memory and of IO the smaller."""
    opened, gate = opening(replace(SEEN, memory_stall=stalled(memory), io_stall=stalled(io)), 0.1, 0.1)
    assert (pytest.approx(opened), gate) == expected


def test_the_higher_average_counts() -> None:
    """oomd: max(avg10, avg60)."""
    assert opening(replace(SEEN, memory_stall=stalled(0.0, 0.05)), 0.1, 0.1)[0] == pytest.approx(0.5)


# Senpai (oomd)


def test_senpai_asks_for_a_hundredth_of_what_is_above_its_floor() -> None:
    """(10 GiB - 100 MiB - 1 GiB unreclaimable) * 0.01, whole pages."""
    seen = replace(SEEN, reclaimable=9 * GIB)
    _, (decision,) = senpai.step(senpai.Settings(), senpai.State(), seen)
    assert decision.nbytes == int((10 * GIB - 100 * MIB - GIB) * 0.01) // 4096 * 4096 == 95_584_256
    assert (decision.stage, decision.gate) == (MEMORY, "open")


def test_senpai_waits_six_seconds_after_a_request_and_one_after_a_closed_gate() -> None:
    state, (asked,) = senpai.step(senpai.Settings(), senpai.State(), SEEN)
    assert asked.nbytes
    state, nothing = senpai.step(senpai.Settings(), state, replace(SEEN, time=5.0))
    assert nothing == ()
    closed = replace(SEEN, time=6.0, memory_stall=stalled(0.1))
    state, (refused,) = senpai.step(senpai.Settings(), state, closed)
    assert (refused.nbytes, refused.gate) == (0, "memory pressure")
    state, (again,) = senpai.step(senpai.Settings(), state, replace(SEEN, time=7.0))
    assert again.nbytes


@pytest.mark.parametrize(
    ("seen", "gate"),
    [
        (replace(SEEN, current=100 * MIB, reclaimable=100 * MIB), "floor"),
        (replace(SEEN, minimum=10 * GIB), "floor"),
        (replace(SEEN, swap=0.8), "swap full"),
    ],
)
def test_senpai_keeps_its_floor_memory_min_and_room_in_swap(seen: Observation, gate: str) -> None:
    _, (decision,) = senpai.step(senpai.Settings(), senpai.State(), seen)
    assert (decision.nbytes, decision.gate) == (0, gate)


# TMO


def test_tmo_asks_for_its_ratio_of_current_by_how_far_pressure_is_below_the_threshold() -> None:
    """10 GiB * 0.0005 * (1 - 0.04 / 0.1)."""
    seen = replace(SEEN, memory_stall=stalled(0.04), io_stall=stalled(0.01))
    _, (decision,) = tmo.step(tmo.Settings(), tmo.State(), seen)
    assert decision.nbytes == int(10 * GIB * 0.0005 * 0.6) // 4096 * 4096 == 3_219_456


def test_tmo_carries_over_what_is_no_whole_page() -> None:
    """4 MiB * 0.0005 is 2097 bytes: two rounds make a page."""
    small = replace(SEEN, current=4 * MIB, reclaimable=4 * MIB)
    state, (first,) = tmo.step(tmo.Settings(), tmo.State(), small)
    assert (first.nbytes, first.gate) == (0, "small")
    state, (second,) = tmo.step(tmo.Settings(), state, small)
    assert second.nbytes == 4096
    assert state.carried == pytest.approx(2 * 4 * MIB * 0.0005 - 4096)


# Katalyst


def test_katalyst_begins_with_a_tenth_of_the_inactive_list_but_a_hundredth_of_all_at_most() -> None:
    """min(max(0 * 1.05, 1 GiB * 0.1), 10 GiB * 0.01), and by pressure 10 GiB * 0.01."""
    _, (decision,) = refault.step(refault.Settings(), refault.State(), SEEN)
    assert decision.nbytes == int(10 * GIB * 0.01) // 4096 * 4096
    _, (decision,) = refault.step(refault.Settings(), refault.State(), replace(SEEN, inactive=100 * MIB))
    assert decision.nbytes == 10 * MIB


def test_katalyst_grows_by_a_twentieth_while_little_comes_back() -> None:
    state = refault.State(last=20 * MIB, refaults=0, stolen=0, scanned=0)
    seen = replace(SEEN, inactive=0, stolen=1000, scanned=1000, refaults=10)
    state, (decision,) = refault.step(refault.Settings(), state, seen)
    assert decision.nbytes == 21 * MIB


def test_katalyst_shrinks_by_its_accuracy_when_too_much_comes_back() -> None:
    """1000 taken, 300 back: accuracy 0.7, so 0.7 of the last."""
    state = refault.State(last=20 * MIB, refaults=0, stolen=0, scanned=0)
    seen = replace(SEEN, stolen=1000, scanned=1000, refaults=300)
    state, (decision,) = refault.step(refault.Settings(), state, seen)
    assert (decision.nbytes, decision.gate) == (14 * MIB, "refaults")
    assert state.last == pytest.approx(14 * MIB)


def test_katalyst_shrinks_when_scanning_brings_little() -> None:
    """500 of 1000 looked at: efficiency 0.5 is below 0.6; nothing came back, so the last is kept."""
    state = refault.State(last=20 * MIB, refaults=0, stolen=0, scanned=0)
    _, (decision,) = refault.step(refault.Settings(), state, replace(SEEN, stolen=500, scanned=1000))
    assert (decision.nbytes, decision.gate) == (20 * MIB, "refaults")


def test_katalyst_takes_the_smaller_of_refaults_and_pressure() -> None:
    """(1 - 0.09 / 0.1) * 0.01 * 10 GiB is below a tenth of the inactive list."""
    _, (decision,) = refault.step(refault.Settings(), refault.State(), replace(SEEN, memory_stall=stalled(9.0, 0.09)))
    assert decision.nbytes == pytest.approx(10 * GIB * 0.01 * 0.1, abs=4096)


# Google's far memory

AGES = tuple(120.0 * i for i in range(6))


def ages(*counts: int) -> Histogram:
    return Histogram(AGES, counts)


def test_the_best_age_is_the_smallest_that_keeps_the_rate() -> None:
    """A minute in which 50, 40, 30, 20, 10 and 5 bytes came back, by age: 35 may."""
    came_back = ages(50, 40, 30, 20, 10, 5)
    assert farmem.best_age(came_back, 1.0, 35) == 360.0  # 20 + 10 + 5
    assert farmem.best_age(came_back, 1.0, 34.9) == 480.0
    assert farmem.best_age(came_back, 1.0, 4) == math.inf
    assert farmem.best_age(ages(0, 0, 0, 0, 0, 0), 1.0, 0) == 0.0


def test_the_threshold_is_a_percentile_of_all_best_ones() -> None:
    assert farmem.percentile((1.0, 2.0, 3.0, 4.0), 50) == 2.0
    assert farmem.percentile(tuple(float(i) for i in range(1, 101)), 98) == 98.0
    assert farmem.percentile((5.0,), 98) == 5.0


def test_far_memory_asks_for_all_that_is_older_than_the_threshold() -> None:
    settings = farmem.Settings()
    cold = ages(100 * MIB, 0, 30 * MIB, 20 * MIB, 10 * MIB, 0)
    state, _ = farmem.step(settings, farmem.State(), replace(SEEN, cold=cold, promoted=ages(0, 0, 0, 0, 0, 0)))
    # 0.2 % of a working set of 100 MiB is 204.8 KiB a minute; 300 KiB came back at 240 s, 100 KiB at 360 s.
    back = ages(0, 0, 300 << 10, 100 << 10, 0, 0)
    state, (early,) = farmem.step(settings, state, replace(SEEN, time=60.0, cold=cold, promoted=back))
    assert early.gate == "warming up"
    state, (decision,) = farmem.step(settings, state, replace(SEEN, time=120.0, cold=cold, promoted=back))
    assert decision.inputs["age"] == 360.0
    assert decision.nbytes == 30 * MIB


def test_a_spike_counts_at_once() -> None:
    """The last minute's best threshold is used when it is higher than the percentile."""
    settings = farmem.Settings(percentile=50)
    state = farmem.State(0.0, 600.0, ages(0, 0, 0, 0, 0, 0), (0.0,) * 10)
    cold = ages(100 * MIB, 0, 0, 0, 0, 7 * MIB)
    spike = ages(0, 0, 0, 0, 9 * MIB, 0)
    _, (decision,) = farmem.step(settings, state, replace(SEEN, time=660.0, cold=cold, promoted=spike))
    assert (decision.inputs["age"], decision.nbytes) == (600.0, 7 * MIB)


def test_far_memory_says_when_a_tree_tells_no_ages() -> None:
    assert farmem.step(farmem.Settings(), farmem.State(), SEEN)[1][0].gate == "no ages"


# Idle


def quiet(seconds: float, current: int = GIB, **more: int) -> Observation:
    return Observation(time=seconds, current=current, reclaimable=current, cpu=0, budget=GIB, **more)


def test_idle_takes_equal_steps_down_to_a_quarter() -> None:
    """Idle after 600 s; of 1 GiB three quarters may go, in steps of 96 MiB."""
    settings, state = idle.Settings(), idle.State()
    for second in range(0, 600, 6):
        state, (decision,) = idle.step(settings, state, quiet(float(second)))
        assert (decision.nbytes, decision.gate) == (0, "awake")
    current = GIB
    sizes = []
    for i in range(20):
        state, (decision,) = idle.step(settings, state, quiet(600.0 + 6 * i, current))
        current -= decision.nbytes
        sizes.append(decision.nbytes)
    assert sizes[:8] == [96 * MIB] * 8
    assert (current, sizes[8:]) == (GIB // 4, [0] * 12)
    assert decision.gate == "floor"


def test_idle_writes_back_when_nothing_resident_is_left() -> None:
    state = idle.State(600.0, 0, 0, 0.0, GIB)
    seen = Observation(time=606.0, current=400 * MIB, zswap=400 * MIB, zswapped=GIB, cpu=0, budget=GIB)
    _, (decision,) = idle.step(idle.Settings(), state, seen)
    assert (decision.stage, decision.nbytes) == (ZSWAP, 96 * MIB)
    _, (decision,) = idle.step(idle.Settings(), state, replace(seen, unwritable="no source"))
    assert (decision.nbytes, decision.gate) == (0, "no source")


@pytest.mark.parametrize("sign", [{"cpu": 20_000}, {"faults": 5}, {"zswpin": 5}])
def test_idle_stops_at_the_first_sign_of_waking(sign: dict[str, int]) -> None:
    """20 ms of CPU in 6 s are 0.33 %."""
    state = idle.State(600.0, 0, 0, 0.0, GIB)
    state, (decision,) = idle.step(idle.Settings(), state, replace(quiet(606.0), **sign))
    assert (decision.nbytes, decision.gate) == (0, "awake")
    assert (state.began, state.quiet_since) == (0, 606.0)


def test_a_heartbeat_does_not_wake_it() -> None:
    """1 ms of CPU in 6 s, and a fault."""
    state = idle.State(600.0, 0, 0, 0.0, GIB)
    _, (decision,) = idle.step(idle.Settings(), state, replace(quiet(606.0), cpu=1000, faults=1))
    assert decision.nbytes == 96 * MIB


# Two stages


def test_stage_one_begins_with_a_hundredth_and_grows_by_a_fifth() -> None:
    settings, state = twostage.Settings(writeback=False), twostage.State()
    sizes = []
    for i in range(3):
        state, (decision,) = twostage.step(settings, state, replace(SEEN, time=6.0 * i))
        sizes.append(decision.nbytes)
    assert sizes == [int(10 * GIB * 0.01) // 4096 * 4096, int(10 * GIB * 0.012) // 4096 * 4096, 128 * MIB]


def test_stage_one_reaches_its_largest_share_and_no_more() -> None:
    settings, state = twostage.Settings(writeback=False), twostage.State()
    small = replace(SEEN, current=100 * MIB, reclaimable=100 * MIB)
    for i in range(100):
        state, (decision,) = twostage.step(settings, state, replace(small, time=6.0 * i))
    assert decision.nbytes == 25 * MIB


def test_stage_one_is_halved_when_the_gate_closes_and_its_gate_has_a_name() -> None:
    settings = twostage.Settings(writeback=False)
    state = twostage.State(probe=0.2)
    for stall, gate in (("memory_stall", "memory pressure"), ("io_stall", "io pressure")):
        after, (decision,) = twostage.step(settings, state, replace(SEEN, **{stall: stalled(0.0, 0.5)}))
        assert (decision.nbytes, decision.gate, after.probe) == (0, gate, 0.1)


def test_a_burst_closes_the_gate_only_when_it_is_ten_times_as_high() -> None:
    settings = twostage.Settings(writeback=False)
    for avg10, opened in ((2.5, 0.5), (5.0, 0.0)):
        _, (decision,) = twostage.step(settings, twostage.State(), replace(SEEN, memory_stall=stalled(avg10)))
        assert decision.inputs["open"] == pytest.approx(opened)


def test_what_refaults_cost_closes_the_gate_without_any_pressure_file() -> None:
    """750 pages from zswap in a minute of 6 s so far: 750 * 40 us / 6 s = 0.5 %."""
    settings, state = twostage.Settings(writeback=False), twostage.State()
    state, _ = twostage.step(settings, state, SEEN)
    _, (half,) = twostage.step(settings, state, replace(SEEN, time=6.0, zswpin=375))
    assert half.inputs["open"] == pytest.approx(0.5)
    _, (closed,) = twostage.step(settings, state, replace(SEEN, time=6.0, zswpin=750))
    assert (closed.nbytes, closed.gate) == (0, "refaults")


#: 64 MiB in zswap that was 192 MiB, the pool a quarter full
POOLED = replace(SEEN, zswap=64 * MIB, zswapped=192 * MIB, takes_age=True, pool=0.25)


def second(settings: twostage.Settings, state: twostage.State, seen: Observation) -> tuple[twostage.State, object]:
    state, decisions = twostage.step(settings, state, seen)
    assert len(decisions) == 2
    return state, decisions[1]


def test_the_age_is_chromeos_s_curve_by_the_fill_of_the_pool() -> None:
    """(86400 - 120) * exp(-5 * 0.25) + 120, with all caution; a round is a quarter of the largest."""
    _, (_, decision) = twostage.step(twostage.Settings(), twostage.State(), POOLED)
    assert decision.min_age == math.ceil(86280 * math.exp(-1.25) + 120)
    assert decision.nbytes == 32 * MIB


def test_caution_is_halved_each_round_in_which_nothing_comes_back() -> None:
    settings, state, found = twostage.Settings(), twostage.State(), []
    for i in range(16):
        state, (_, decision) = twostage.step(settings, state, replace(POOLED, time=30.0 * i, pool=0.0))
        found.append(decision.inputs["age"])
    assert found[:3] == [86400.0, 120 + 86280 / 2, 120 + 86280 / 4]
    assert found[-1] == 120.0


def test_caution_is_doubled_and_a_minute_waited_when_pages_from_the_device_cost_time() -> None:
    """700 pages of 470 us in 60 s are 0.55 %."""
    settings, state = twostage.Settings(), twostage.State()
    for i in range(20):
        state, _ = twostage.step(settings, state, replace(POOLED, time=30.0 * i, zswpwb=100_000))
    assert state.caution == 0.0
    seen = replace(POOLED, time=600.0, zswpwb=100_000, diskin=700)
    state, (_, decision) = twostage.step(settings, state, seen)
    assert (state.caution, decision.nbytes, state.held) == (1 / 32, 0, 660.0)
    state, (_, decision) = twostage.step(settings, state, replace(seen, time=630.0))
    assert (decision.nbytes, state.caution) == (0, 1 / 32)
    _, (_, decision) = twostage.step(settings, state, replace(seen, time=690.0))
    assert decision.nbytes > 0


def test_what_comes_back_is_left_out_of_a_round_and_costs_budget() -> None:
    """Of 1000 pages written in the window 250 came back: three quarters of a round, and 250 compressed pages."""
    settings = twostage.Settings()
    state, _ = twostage.step(settings, twostage.State(), POOLED)
    seen = replace(POOLED, time=240.0, zswpwb=1000, diskin=250)
    _, (_, decision) = twostage.step(settings, state, seen)
    opened = decision.inputs["open"]
    assert decision.nbytes == int(32 * MIB * 0.75 * opened)
    assert decision.penalty == 250 * 4096 // 3


def test_more_than_half_coming_back_calls_for_caution_however_little_it_costs() -> None:
    settings = twostage.Settings()
    state = replace(twostage.State(), caution=0.25)
    state, _ = twostage.step(settings, state, POOLED)
    state, _ = twostage.step(settings, state, replace(POOLED, time=30.0, zswpwb=10, diskin=6))
    assert state.caution == 0.5


def test_without_min_age_the_order_of_arrival_tells_what_is_old() -> None:
    """A kernel's: all 48 Ki pages were there at 0 s; 12 Ki of them have arrived since: three quarters are old."""
    settings = twostage.Settings()
    seen = replace(POOLED, takes_age=False, zswpout=49_152)
    state = replace(twostage.State(), caution=0.0)
    for i in range(6):
        state, (_, decision) = twostage.step(settings, state, replace(seen, time=30.0 * i))
        assert (decision.nbytes > 0) == (30.0 * i >= 120.0)
        assert decision.min_age is None
    state, (_, decision) = twostage.step(settings, state, replace(seen, time=180.0, zswpout=49_152 + 12_288))
    assert decision.inputs["cold"] == 48 * MIB


@pytest.mark.parametrize(
    ("seen", "gate"),
    [
        (replace(POOLED, unwritable="no source"), "no source"),
        (replace(POOLED, unwritable="quiet hours"), "quiet hours"),
        (replace(POOLED, budget=0), "budget"),
        (replace(POOLED, zswap=0), "nothing compressed"),
        (replace(POOLED, memory_stall=stalled(0.0, 0.5)), "memory pressure"),
    ],
)
def test_stage_two_says_why_it_writes_nothing(seen: Observation, gate: str) -> None:
    _, (_, decision) = twostage.step(twostage.Settings(), twostage.State(), seen)
    assert (decision.nbytes, decision.gate) == (0, gate)


def test_stage_two_stays_within_the_budget() -> None:
    _, (_, decision) = twostage.step(twostage.Settings(), twostage.State(), replace(POOLED, budget=12345))
    assert decision.nbytes == 12345


# All of them


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_only_gives_reasons_that_there_are_words_for(name: str) -> None:
    policy = POLICIES[name]
    state = policy.State()
    seen = (SEEN, POOLED, replace(POOLED, memory_stall=stalled(9.0, 9.0)), replace(SEEN, current=0, reclaimable=0))
    for i, one in enumerate(seen):
        state, decisions = policy.step(policy.Settings(), state, replace(one, time=60.0 * i))
        assert {decision.gate for decision in decisions} <= GATES.keys()


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_a_pure_function(name: str) -> None:
    policy = POLICIES[name]
    state = policy.State()
    assert policy.step(policy.Settings(), state, POOLED) == policy.step(policy.Settings(), state, POOLED)
    assert state == policy.State()


def test_what_stays_in_zswap_is_compressed_again_in_each_round_before_it_is_old_enough_for_the_device() -> None:
    """8 MiB a round of 30 s, of what is older than half of age_min; by how far the gate is open; and it can be off."""
    seen = replace(POOLED, takes_recompress=True)
    state, (_, again, write) = twostage.step(twostage.Settings(), twostage.State(), seen)
    assert (again.stage, again.nbytes, again.min_age, again.codec) == (RECOMPRESS, 8 * MIB, 60, "zstd")
    assert write.stage == ZSWAP
    assert (write.min_age or 0) > 2 * 60
    later, decisions = twostage.step(twostage.Settings(), state, replace(seen, time=24.0))
    assert [one.stage for one in decisions] == [MEMORY]
    _, (_, again, _) = twostage.step(
        twostage.Settings(), later, replace(seen, time=30.0, zswap=2 * MIB, memory_stall=stalled(0.0, 0.25))
    )
    assert again.nbytes == MIB
    for settings, one in (
        (twostage.Settings(recompress=False), seen),
        (twostage.Settings(), POOLED),
        (twostage.Settings(), replace(seen, zswap=0)),
        (twostage.Settings(), replace(seen, memory_stall=stalled(0.0, 0.5))),
    ):
        _, decisions = twostage.step(settings, twostage.State(), one)
        assert [decision.stage for decision in decisions] == [MEMORY, ZSWAP]

"""Every test here runs once in each mode; with faults by signal those that say most of it, and all in a soak."""

from collections.abc import Iterator

import pytest
from tests.core.paging.rig import Mode, Rig, zygote
from tests.support.soak import SOAK

BY_SIGNAL = {
    "test_a_column_comes_in_without_the_pages_between",
    "test_a_column_from_below_as_many_pages_apart_as_come_in",
    "test_a_call_may_be_larger_than_the_budget",
    "test_a_child_has_what_its_parent_has",
    "test_a_child_that_closes_all_descriptors_has_its_arrays",
    "test_a_fault_that_meets_a_read_error_is_a_sigbus",
    "test_a_page_that_could_not_be_read_is_there_when_it_is_asked_for_again",
    "test_a_signal_handler_that_faults_itself",
    "test_a_signal_kills_a_process_that_waits_for_a_page",
    "test_accesses_over_borders_in_several_threads",
    "test_an_access_over_the_border_of_pages",
    "test_an_array_is_what_a_plain_copy_of_it_is",
    "test_beyond_an_array_is_a_sigbus",
    "test_descriptors_closed_by_the_program_are_not_the_pagers",
    "test_faults_while_the_gil_is_held",
    "test_madvise_dontneed",
    "test_many_forks_leave_nothing",
    "test_one_filter_serves_all_engines",
    "test_partial_munmap",
    "test_threads_that_fit_one_by_one_do_not_put_out_each_other",
    "test_threads_that_write_to_the_same_pages",
    "test_what_is_asked_for_spares_nothing",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def left_out(item: pytest.Item) -> bool:
        mode = item.callspec.params.get("rig") if hasattr(item, "callspec") else None
        return mode is Mode.SIGNAL and not SOAK and getattr(item, "originalname", "") not in BY_SIGNAL

    kept = [item for item in items if not left_out(item)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
        items[:] = kept


@pytest.fixture(scope="session", params=list(Mode), ids=str)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with zygote(request.param) as parent:
        yield Rig(request.param, parent)

"""Fixtures for every test: engines that are checked and closed, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

os.environ["UZSWAP_CHECK_LOCKS"] = "1"  # before uzswap is imported, here and in every child

import hypothesis
import numpy  # noqa: F401  its threads (OpenBLAS) start at the first import: before any test, so that none seems to leak them
import pytest

from tests.support import child
from tests.support.faulty import FaultySwap
from tests.support.leaks import Snapshot
from tests.support.tried import TRIED, in_words
from tests.support.zygote import Zygote

if TYPE_CHECKING:
    from uzswap import Zswap

_FAILED = pytest.StashKey[bool]()


def pytest_configure() -> None:
    """Have Ctrl-C work here and in child processes: what a shell runs in the background inherits it ignored.

    And no example of a property is too slow: how long one takes says how busy the machine is.
    """
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


class EngineFactory(Protocol):
    """``engine(**options)`` makes a Zswap; see :func:`engine`."""

    def __call__(self, **options: Any) -> Zswap: ...


class Tally(Protocol):
    """``tally("kills", 3)`` adds to what is told of all tests at the end; see :func:`tally`."""

    def __call__(self, kind: str, number: int = 1) -> None: ...


class FaultyDisks:
    """``faulty_swap(size)`` makes a :class:`FaultySwap`; see :func:`faulty_swap`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._disks: list[FaultySwap] = []

    def __call__(self, size: int = 16 << 20) -> FaultySwap:
        self._disks.append(self._stack.enter_context(FaultySwap(size)))
        return self._disks[-1]

    def heal(self) -> None:
        for disk in self._disks:
            if not disk.closed:
                disk.heal()


@pytest.fixture
def faulty_swap() -> Iterator[FaultyDisks]:
    """Makes disks that fail on command and outlive the test's engines.

    disk = faulty_swap()
    z = engine(swap=disk.path, swap_size=disk.size)
    """
    with ExitStack() as stack:
        yield FaultyDisks(stack)


@pytest.fixture
def engine(tmp_path: Path, faulty_swap: FaultyDisks) -> Iterator[EngineFactory]:
    """Makes engines that end with the test.

    A factory with the parameters of ``uzswap.Zswap``; by default a swap file of 64 MiB in the test's own directory.  At
    the end faulty disks are healed, each engine's background work is awaited, every invariant is checked, and it is
    closed; also after a failed test.  Whatever the test closed itself is left alone.
    """
    from uzswap import Zswap  # here, so that tests of what needs no engine can be collected without one

    made: list[Zswap] = []

    def make(**options: Any) -> Zswap:
        options = {"swap": str(tmp_path / f"swap{len(made)}"), "swap_size": "64M", **options}
        made.append(Zswap(**options))
        return made[-1]

    yield make
    last_steps: list[Callable[[], None]] = [faulty_swap.heal]
    for z in reversed(made):
        if not z.core.closed:
            last_steps += [z.flush_work, z.check, z.close]
    errors: list[Exception] = []
    for step in last_steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("engines that did not end well", errors)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Adds up, over all tests and all workers, how much was tried of what no single number of tests says."""

    def add(kind: str, number: int = 1) -> None:
        assert kind in TRIED, kind
        request.node.user_properties.append((kind, number))

    return add


@pytest.fixture(scope="session", autouse=True)
def zygote() -> Iterator[None]:
    """What children are forked from: of the session, and so nobody's leak."""
    with Zygote(child.Child) as child.warm:
        yield
    child.warm = None


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a descriptor, thread, child process, shared mapping or mount behind.

    A test that failed already is let off: its traceback keeps alive what it had open.
    """
    before = Snapshot.take()
    yield
    if not request.node.stash.get(_FAILED, False) and (leaked := before.leaked()):
        pytest.fail("left behind:\n  " + "\n  ".join(leaked), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several share the work, begin with what takes long: nobody then has much to do when the others are done."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    gc.freeze()  # what exists now outlives every test: the collections in tests need not walk it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Nor what the tests of a file leave: modules that they have imported, reports, and whatever libraries keep."""
    yield
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how much was tried, and what was not tested, by reason: the reasons say how to enable it."""
    every = [report for reports in terminalreporter.stats.values() for report in reports]
    if tried := in_words(
        pair for report in every if getattr(report, "when", None) == "call" for pair in report.user_properties
    ):
        terminalreporter.section("tried")
        terminalreporter.write_line(tried)
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if not skipped:
        return
    terminalreporter.section("not tested here")
    for reason, tests in sorted(skipped.items()):
        terminalreporter.write_line(reason, yellow=True)
        for test in tests:
            terminalreporter.write_line(f"  {test}")

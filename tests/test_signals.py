"""Handlers are put off while a guard is held, and none is lost (uzswap.signals)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from uzswap.signals import hold_back_signals

Handler = Callable[[int, FrameType | None], None]


@pytest.fixture
def install() -> Iterator[Callable[[int, Handler], None]]:
    before: dict[int, object] = {}

    def install(number: int, handler: Handler) -> None:
        before.setdefault(number, signal.signal(number, handler))

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


Install = Callable[[int, Handler], None]


def send(number: int) -> None:
    """To the process: any of its threads may get it."""
    os.kill(os.getpid(), number)


def test_nothing_pending() -> None:
    with hold_back_signals() as signals:
        assert not signals.pending()


def test_a_handler_runs_when_the_guard_is_left(install: Install) -> None:
    came: list[int] = []
    install(signal.SIGUSR1, lambda number, frame: came.append(number))
    with hold_back_signals() as signals:
        send(signal.SIGUSR1)
        send(signal.SIGUSR1)
        assert signals.pending()
        assert came == []
    assert came == [signal.SIGUSR1]


def test_all_handlers_run_also_when_one_raises(install: Install) -> None:
    came: list[int] = []

    def fail(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    install(signal.SIGUSR1, fail)
    install(signal.SIGUSR2, lambda number, frame: came.append(number))

    def both() -> None:
        with hold_back_signals():
            send(signal.SIGUSR1)
            send(signal.SIGUSR2)

    with pytest.raises(KeyboardInterrupt):
        both()
    assert sorted(came) == [signal.SIGUSR1, signal.SIGUSR2]


def test_a_raising_handler_has_the_blocks_exception_as_context(install: Install) -> None:
    def fail(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    install(signal.SIGUSR1, fail)

    def end_early() -> None:
        with hold_back_signals():
            send(signal.SIGUSR1)
            raise OSError("how far it came")

    with pytest.raises(KeyboardInterrupt) as raised:
        end_early()
    assert isinstance(raised.value.__context__, OSError)


def test_guards_nest(install: Install) -> None:
    came: list[int] = []
    install(signal.SIGUSR1, lambda number, frame: came.append(number))
    with hold_back_signals() as outer:
        with hold_back_signals() as inner:
            send(signal.SIGUSR1)
            assert inner.pending()
        assert outer.pending()
        assert came == []
    assert came == [signal.SIGUSR1]


def test_a_handler_installed_meanwhile_stays(install: Install) -> None:
    came: list[str] = []
    install(signal.SIGUSR1, lambda number, frame: came.append("old"))
    with hold_back_signals():
        signal.signal(signal.SIGUSR1, lambda number, frame: came.append("new"))
    send(signal.SIGUSR1)
    assert came == ["new"]


def test_handlers_are_there_again(install: Install) -> None:
    def handler(number: int, frame: FrameType | None) -> None: ...

    install(signal.SIGUSR1, handler)
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with hold_back_signals():
        pass
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def in_a_thread(call: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_a_thread_sees_what_is_sent_to_it(install: Install) -> None:
    came: list[int] = []
    install(signal.SIGUSR1, lambda number, frame: came.append(number))

    def work() -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        with hold_back_signals() as signals:
            assert not signals.pending()
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert signals.pending()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask

    in_a_thread(work)
    assert came == [signal.SIGUSR1]


def test_what_a_thread_had_blocked_does_not_count(install: Install) -> None:
    install(signal.SIGUSR1, lambda number, frame: None)

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        with hold_back_signals() as signals:
            assert not signals.pending()
        assert signal.SIGUSR1 in signal.sigpending()

    in_a_thread(work)


def test_ignored_signals_do_not_count(install: Install) -> None:
    install(signal.SIGUSR1, signal.SIG_IGN)  # type: ignore[arg-type]

    def work() -> None:
        with hold_back_signals() as signals:
            for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGWINCH):
                signal.pthread_kill(threading.get_ident(), number)
            assert not signals.pending()

    in_a_thread(work)

"""Control files of an engine in another process, over its socket."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
from collections.abc import Collection, Iterator
from typing import Any, Final, Self

from uzswap.client.client import Client, RemoteFile
from uzswap.client.root import PATIENCE, Interrupts, Name, Root
from uzswap.errors import ReclaimError, os_error
from uzswap.threads import start_thread

__all__ = ["SocketRoot"]


class SocketRoot(Root):
    """The tree of an engine.  Connects when it is first used."""

    def __init__(self, socket: str) -> None:
        self.socket: Final = socket
        self._client = Client(socket)
        #: whether the engine takes both halves of :meth:`act` as one request
        self._acts = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def again(self) -> SocketRoot:
        return SocketRoot(self.socket)

    def read(self, path: str) -> str:
        with self._told(path):
            return self._client.read(path)

    def write(
        self, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        with self._told(path):
            if interrupts is not None:
                self._write_interruptibly(path, data, within, interrupts)
            elif within is not None:
                self._write_within(path, data, within)
            else:
                self._client.write(path, data)

    def act(
        self, directory: str, file: str, data: bytes, then: str, *, within: float | None
    ) -> tuple[OSError | None, str | None]:
        if self._acts and within is not None:
            path = f"{directory}/{file}"
            try:
                with self._told(path):
                    return self._client.act(path, data, then, within)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    return error, None
                self._acts = False  # an older engine
        return super().act(directory, file, data, then, within=within)

    def _write_within(self, path: str, data: bytes, within: float) -> None:
        self._client.set_timeout(within)
        try:
            file = self._client.open(path)
        except TimeoutError:
            raise os_error(errno.ETIMEDOUT, f"the engine did not answer within {within:g} s", path) from None
        finally:
            self._client.set_timeout(None)
        try:
            file.write(data, within=within)
        except ReclaimError as error:
            error.filename = path  # to the engine it was a number
            raise
        finally:
            with contextlib.suppress(OSError):
                file.close()

    def _write_interruptibly(self, path: str, data: bytes, within: float | None, interrupts: Interrupts) -> None:
        """Have a thread write to an open file, whose closing interrupts the write: this one is for signals."""
        # A connection of its own, which can be cut without spoiling the other's next answer.
        with Client(self.socket, timeout=within) as client:
            try:
                file = client.open(path)
            except TimeoutError:
                raise os_error(errno.ETIMEDOUT, f"the engine did not answer within {within:g} s", path) from None
            client.set_timeout(None)

            def interrupt() -> None:
                with contextlib.suppress(OSError):
                    file.interrupt(PATIENCE)

            try:
                done = _in_thread(file, data)
                with interrupts.call(interrupt):
                    if concurrent.futures.wait([done], within).not_done:
                        interrupt()
                        if concurrent.futures.wait([done], PATIENCE).not_done:
                            client.cut()
                            text = f"the engine did not even answer within {PATIENCE:g} s of being interrupted"
                            raise os_error(errno.ETIMEDOUT, text, path)
                    done.result()
            except ReclaimError as error:
                error.filename = path
                raise
            finally:
                with contextlib.suppress(OSError):
                    file.close()

    def names(self, path: str) -> list[Name]:
        with self._told(path):
            entries = self._client.list(path)
        return [Name(one["name"], one["type"] == "directory", int(one["mode"], 8), one["inode"]) for one in entries]

    def directories(self, path: str) -> list[tuple[str, int]]:
        return [(name.name, name.inode) for name in self.names(path) if name.is_directory]

    def inode(self, path: str) -> int:
        with self._told(path):
            return self._client.inode(path)

    def stat(self, path: str, files: Collection[str] | None = None) -> list[dict[str, Any]] | None:
        cgroup = path.removeprefix("/cgroup") or "/"
        try:
            with self._told(path):
                return self._client.stat(cgroup, recursive=True, files=files)
        except FileNotFoundError:
            # No such cgroup, or no such request: reading tells.
            return None

    def report(self, path: str, key: str | None = None) -> dict[str, Any]:
        with self._told(path):
            return self._client.report(path.removeprefix("/cgroup") or "/", key)

    def mkdir(self, path: str) -> None:
        with self._told(path):
            self._client.mkdir(path)

    def rmdir(self, path: str) -> None:
        with self._told(path):
            self._client.rmdir(path)

    def mount(self, path: str, *, allow_other: bool) -> None:
        """Have the engine mount its tree; raises as :class:`~uzswap.serve.fuse.Mount`."""
        with self._told(path):
            self._client.mount(path, allow_other=allow_other)

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Say what a connection that breaks means; and never with EPIPE, which is for stdout."""
        try:
            yield
        except ConnectionRefusedError as error:
            text = "nobody answers at this socket: its process has ended, or serves no more"
            raise os_error(errno.ECONNREFUSED, text, self.socket) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise os_error(errno.ECONNRESET, "the engine ended before it answered", path) from error


def _in_thread(file: RemoteFile, data: bytes) -> concurrent.futures.Future[int]:
    done: concurrent.futures.Future[int] = concurrent.futures.Future()

    def work() -> None:
        try:
            done.set_result(file.write(data))
        except BaseException as error:
            done.set_exception(error)

    start_thread("uzswap-write", work)
    return done

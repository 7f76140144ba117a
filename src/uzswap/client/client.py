"""The other end of the socket: control files of another process, with the same errors as at home."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import select
import socket
from collections.abc import Callable, Collection
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from uzswap.client.root import PATIENCE
from uzswap.errors import os_error, reclaim_error
from uzswap.result import ReclaimResult

__all__ = ["Client", "RemoteFile"]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        #: of a request that is being made
        self._parts: list[bytes] | None = None

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError as error:
            self.sock.close()
            raise os_error(error.errno or errno.EIO, f"nobody answers: {error.strerror}", self._path) from error

    def request(self, *arguments: Any, **more: Any) -> None:
        """Send a request with its body as one: the other end, which answers each at once, is woken once."""
        self._parts = []
        try:
            super().request(*arguments, **more)
            whole = b"".join(self._parts)
        finally:
            self._parts = None
        self.send(whole)

    def send(self, data: Any) -> None:
        if self._parts is None:
            super().send(data)
        else:
            self._parts.append(data)

    def drop_if_ended(self) -> None:
        """Connect anew if the other end has closed the connection; nothing is lost, nothing was asked yet."""
        if self.sock is not None:
            waiting = select.poll()
            waiting.register(self.sock, select.POLLIN)
            if waiting.poll(0):
                self.close()


class Client:
    """A connection to an engine's socket; a context manager, for one thread.

    Every method raises the OSError that the operation itself gave, with its errno and message; with ``timeout``, in
    seconds, also a TimeoutError when the other end is silent for so long.
    """

    def __init__(self, socket_path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        self.socket_path: Final = os.fspath(socket_path)
        self._connection = _UnixConnection(self.socket_path, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def set_timeout(self, seconds: float | None) -> None:
        """Change the timeout; None waits for ever."""
        self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)

    def cut(self) -> None:
        """End the connection under another thread, which gets ECONNRESET."""
        with contextlib.suppress(OSError):  # it has ended
            if self._connection.sock is not None:
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def read(self, path: str) -> str:
        """Return the text of a file; raises EISDIR for a directory."""
        content, headers = self._request("GET", path)
        if headers.get_content_type() == "application/json":
            raise os_error(errno.EISDIR, "this is a directory", path)
        return content.decode()

    def write(self, path: str, data: str | bytes) -> int:
        """Write to a file as one write; returns the number of bytes."""
        raw = data.encode() if isinstance(data, str) else data
        self._request("PUT", path, raw)
        return len(raw)

    def act(self, path: str, data: bytes, then: str, within: float) -> tuple[OSError | None, str | None]:
        """Write as one write, and read another file of the same cgroup afterwards, in one request.

        Returns what the write raised, EINTR when it took longer than ``within`` seconds, and the other file's text,
        None when the cgroup is gone.

        Raises
        ------
        OSError
            ETIMEDOUT: no answer came; EOPNOTSUPP: an older engine has no such request.
        """
        self.set_timeout(within + PATIENCE)
        try:
            answer = self._request("POST", path, data, query={"within": f"{within:g}", "then": then})[0]
        except TimeoutError:
            text = f"the engine did not even answer within {PATIENCE:g} s of when it should have ended"
            raise os_error(errno.ETIMEDOUT, text, path) from None
        finally:
            self.set_timeout(None)
        told = json.loads(answer)
        return None if told["error"] is None else _error_of(told["error"]), told["then"]

    def stat(
        self, cgroup: str = "/", *, recursive: bool = False, files: Collection[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return what is told by the files of a cgroup, or of each of its subtree.

        Each is {"cgroup": path, "inode": of its directory, file: number or keys}.  What is 0 or unlimited, and always
        was, is left out; and all but ``files``, if these are given.
        """
        query = {"cgroup": cgroup, "recursive": str(int(recursive))}
        if files is not None:
            query["files"] = ",".join(files)
        told: list[dict[str, Any]] = json.loads(self._request("GET", "/v1/stat", query=query)[0])["cgroups"]
        return told

    def ages(self, cgroup: str = "/") -> dict[str, Any]:
        """Return what is in the pool by age: {"since": seconds, "bytes": compressed, "entries"}, each a list.

        An age counts under the last of ``since`` that it has reached, so the sum from one on is what a request for
        writeback with that ``min_age`` could take.
        """
        told: dict[str, Any] = json.loads(self._request("GET", "/v1/ages", query={"cgroup": cgroup})[0])
        return told

    def report(self, cgroup: str = "/", key: str | None = None) -> dict[str, Any]:
        """Return where the memory of the process is, and why values stay: ``uzswap.report()`` as dicts and lists.

        With ``key``, a key as Python writes it: {"cgroup", "values": why its value is where it is, of each store of the
        cgroup that has it}; ENOENT when none has.
        """
        query = {"cgroup": cgroup} | ({} if key is None else {"key": key})
        told: dict[str, Any] = json.loads(self._request("GET", "/v1/report", query=query)[0])
        return told

    def list(self, path: str) -> list[dict[str, Any]]:
        """Return name, type, mode and inode of what is in a directory."""
        entries: list[dict[str, Any]] = self._listing(path)["entries"]
        return entries

    def inode(self, path: str) -> int:
        """Return the identity of a directory: no cgroup has that of another one, also of one that is gone."""
        inode: int = self._listing(path)["inode"]
        return inode

    def _listing(self, path: str) -> dict[str, Any]:
        listing: dict[str, Any] = json.loads(self._request("GET", path.rstrip("/") + "/")[0])
        return listing

    def mkdir(self, path: str) -> None:
        self._request("PUT", path.rstrip("/") + "/")

    def rmdir(self, path: str) -> None:
        self._request("DELETE", path)

    def mount(self, path: str | os.PathLike[str], *, allow_other: bool = False) -> None:
        """Have the engine mount its tree at an absolute path, as ``z.mount()``."""
        query = {"mount": os.fspath(path)} | ({"allow_other": ""} if allow_other else {})
        self._request("POST", "/", query=query)

    def open(self, path: str, *, nonblock: bool = False) -> RemoteFile:
        """Open a file, for what belongs to an open file."""
        query = {"open": ""} | ({"nonblock": ""} if nonblock else {})
        return RemoteFile(self, self._request("POST", path, query=query)[1]["Location"])

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        query: dict[str, str] | None = None,
        wait: Callable[[socket.socket], None] | None = None,
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Return the body of the answer and its headers; ``wait`` waits until it comes."""
        # The path as it is, dots and all: it is the tree that says what they mean.
        target = quote(os.fsencode(path), safe="/") + (
            f"?{urlencode(query, errors='surrogateescape')}" if query else ""
        )
        self._connection.drop_if_ended()
        try:
            self._connection.request(method, target, body, {"Content-Type": "text/plain"} if body is not None else {})
            if wait is not None:
                wait(self._connection.sock)
            answer = self._connection.getresponse()
            content = answer.read()
        except http.client.RemoteDisconnected as error:
            self._connection.close()
            raise os_error(errno.ECONNRESET, "the engine ended before it answered", path) from error
        except http.client.HTTPException as error:
            self._connection.close()
            raise os_error(errno.EPROTO, f"this is no answer of uzswap's: {error}", path) from error
        except BaseException:
            # An answer may still come: it must not be taken for the next request's.
            self._connection.close()
            raise
        if answer.status >= 400:
            _raise(content, path)
        return content, answer.headers


class RemoteFile:
    """An open file at the other end; a context manager."""

    def __init__(self, client: Client, location: str) -> None:
        self._client = client
        self._location = location
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self) -> str:
        return self._client.read(self._location)

    def write(self, data: str | bytes, *, within: float | None = None) -> int:
        """Write as one write; returns the number of bytes.

        One that takes longer than ``within`` seconds is interrupted (EINTR), and the file is closed then; ETIMEDOUT
        when there is no answer even then.
        """
        if within is None:
            return self._client.write(self._location, data)

        def wait(connection: socket.socket) -> None:
            if not _answers(connection, within):
                with contextlib.suppress(OSError):
                    self.interrupt(PATIENCE)
                if not _answers(connection, PATIENCE):
                    text = f"the engine did not even answer within {PATIENCE:g} s of being interrupted"
                    raise os_error(errno.ETIMEDOUT, text, self._location)

        raw = data.encode() if isinstance(data, str) else data
        self._client._request("PUT", self._location, raw, wait=wait)
        return len(raw)

    def poll(self, timeout: float) -> int:
        """Wait for news, ``timeout`` seconds at most; returns poll(2)'s events."""
        answer = self._client._request("GET", self._location, query={"poll": str(timeout)})[0]
        events: int = json.loads(answer)["events"]
        return events

    def interrupt(self, timeout: float | None = None) -> None:
        """Close the file while another thread writes to it: the write ends with EINTR, as for a signal."""
        self._closed = True
        with Client(self._client.socket_path, timeout=timeout) as other:
            other._request("DELETE", self._location)

    def close(self) -> None:
        """Close the file.  Calling it again does nothing."""
        if not self._closed:
            self._closed = True
            self._client._request("DELETE", self._location)


def _answers(connection: socket.socket, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _raise(content: bytes, path: str) -> None:
    """Raise what an answer tells."""
    try:
        error = _error_of(json.loads(content))
    except (ValueError, KeyError, TypeError):
        text = content.decode(errors="replace")
        raise os_error(errno.EPROTO, f"this is no answer of uzswap's: {text[:200]!r}", path) from None
    raise error


def _error_of(told: dict[str, Any]) -> OSError:
    number, message, filename = int(told["errno"]), str(told["message"]), str(told["path"])
    if "result" in told:
        error: OSError = reclaim_error(number, message, _result(told["result"]))
        error.filename = filename
        return error
    return os_error(number, message, filename)


def _result(told: dict[str, Any]) -> ReclaimResult:
    failed = {key.removeprefix("failed."): told.pop(key) for key in list(told) if key.startswith("failed.")}
    return ReclaimResult(**told, failed=failed)

"""What each request on the socket does; :mod:`uzswap.serve.server` says which there are.

Threads: all of this runs in the server's event loop.  Reading a file takes microseconds and is done there, and so is a
write for which nothing is reclaimed.  A listing, other writes and what tells of all cgroups can take long, so
each has a thread of its own.  Waiting takes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qs, unquote_to_bytes

from uzswap.errors import ReclaimError, os_error
from uzswap.files.cgroup import FILES
from uzswap.files.snapshot import ages_of, take
from uzswap.reports.report import report_of, why_as_json
from uzswap.serve.openapi import as_yaml
from uzswap.serve.peer import is_privileged, peer_of
from uzswap.serve.virtual_tree import MAX_WRITE, ControlTree, Directory, File, OpenFile
from uzswap.serve.watch import Watch
from uzswap.signals import on_behalf_of
from uzswap.threads import start_thread
from uzswap.units import is_path

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.files.view import EngineView

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError("the socket needs aiohttp: pip install 'uzswap[http]'") from error

__all__ = ["STATUS", "MountTree", "Requests", "errors_as_json"]

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)
MountTree = Callable[[str, bool], object]

#: errno -> HTTP status; the errno in the body is what counts.  Others are 500: the device, or a fault of ours.
STATUS: Final = {
    errno.EINVAL: 400,
    errno.ERANGE: 400,
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.ENOENT: 404,
    errno.ENOTDIR: 404,
    errno.ELOOP: 404,
    errno.EISDIR: 405,
    errno.EOPNOTSUPP: 405,
    errno.EAGAIN: 409,
    errno.EBUSY: 409,
    errno.EEXIST: 409,
    errno.EINTR: 409,
    errno.ENOTEMPTY: 409,
    errno.EBADF: 410,
    errno.ENODEV: 410,
    errno.E2BIG: 413,
    errno.ENAMETOOLONG: 414,
    errno.EMFILE: 429,
    errno.ENOSPC: 507,
}
#: HTTP status -> errno, for what aiohttp refuses by itself
_ERRNO: Final = {404: errno.ENOENT, 405: errno.EOPNOTSUPP, 413: errno.E2BIG}
#: every path, newlines included
_ANY: Final = "/{path:(?s:.*)}"
#: files that clients may have open together, as RLIMIT_NOFILE usually is
_MOST_OPEN: Final = 1024
#: seconds that a poll waits at most, unless it is asked again
_LONGEST_POLL: Final = 3600.0
#: letters of the strip of an array
_STRIP: Final = 256


@dataclass(eq=False)
class _Open:
    """An open file.  Nothing tells that a client is gone, so one that nobody has used for so long may be closed."""

    file: OpenFile
    used: float = field(default_factory=time.monotonic)
    #: polls under way
    polls: set[object] = field(default_factory=set)
    #: writes under way: set, they end
    writes: set[threading.Event] = field(default_factory=set)

    def is_idle(self) -> bool:
        return not self.polls and not self.writes and time.monotonic() - self.used > _LONGEST_POLL


class Requests:
    """The requests of one server.

    Parameters
    ----------
    engine
        Whose control files these are.
    mount
        Has the engine mount its tree: a path, and whether for others too.
    """

    def __init__(self, engine: EngineView, mount: MountTree) -> None:
        self._engine = engine
        self._mount_tree = mount
        self.tree = ControlTree(engine)
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._watch = Watch(engine.tree)
        self._scraping = asyncio.Lock()

    def application(self) -> web.Application:
        """Return what serves everything."""
        application = web.Application(middlewares=[errors_as_json])
        router = application.router
        router.add_get("/metrics", self.metrics)
        router.add_get("/v1/stat", self.stat)
        router.add_get("/v1/ages", self.ages)
        router.add_get("/v1/report", self.report)
        router.add_get("/openapi.yaml", self.openapi)
        router.add_get("/open/{number}", self.get_open)
        router.add_put("/open/{number}", self.put_open)
        router.add_delete("/open/{number}", self.delete_open)
        router.add_get(_ANY, self.get)
        router.add_put(_ANY, self.put)
        router.add_post(_ANY, self.post)
        router.add_delete(_ANY, self.delete)
        return application

    def metrics_application(self) -> web.Application:
        """Return what serves the metrics and nothing else."""
        application = web.Application(middlewares=[errors_as_json])
        application.router.add_get("/metrics", self.metrics_of_one)
        return application

    def close(self) -> None:
        """Close all that clients have left open."""
        self._watch.close()
        for opened in self._open.values():
            opened.file.close()
        self._open.clear()

    # The tree

    async def get(self, request: web.Request) -> web.Response:
        node = self.tree.lookup(_path(request))
        if isinstance(node, File):
            file = node
            return web.Response(text=file.read() if file.type.locks else await _in_thread(file.read))
        directory = node
        entries = await _in_thread(lambda: _listing(directory))
        return web.Response(body=entries, content_type="application/json")

    async def put(self, request: web.Request) -> web.Response:
        path = _path(request)
        if path.endswith("/"):
            self.tree.mkdir(path)
            return web.Response(status=201)
        node = self.tree.file(path)
        data = await _body(request)
        privileged = _is_privileged(request)
        if node.is_quick:
            node.write(data, privileged=privileged)
        else:
            await _in_thread(lambda: node.write(data, privileged=privileged))
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        path = _path(request)
        if isinstance(self.tree.lookup(path), File):
            raise os_error(errno.EPERM, "files cannot be removed: remove their cgroup", path)
        self.tree.rmdir(path)
        return web.Response(status=204)

    # Open files

    async def post(self, request: web.Request) -> web.Response:
        path = _path(request)
        if path == "/" and "mount" in request.query:
            await self._mount(request.query["mount"], allow_other="allow_other" in request.query)
            return web.Response(status=201)
        node = self.tree.file(path)
        if "within" in request.query:
            return await self._act(request, node)
        if "open" not in request.query:
            raise os_error(errno.EOPNOTSUPP, "POST opens a file: say ?open, or write to it with PUT", path)
        if len(self._open) >= _MOST_OPEN:
            for number in [number for number, opened in self._open.items() if opened.is_idle()]:
                self._open.pop(number).file.close()
        if len(self._open) >= _MOST_OPEN:
            raise os_error(errno.EMFILE, f"{_MOST_OPEN} files are open already: DELETE some", path)
        file = node.open(nonblock="nonblock" in request.query, privileged=_is_privileged(request))
        number = next(self._numbers)
        self._open[number] = _Open(file)
        return web.Response(status=201, headers={"Location": f"/open/{number}"})

    async def _act(self, request: web.Request, node: File) -> web.Response:
        """Write to a file for at most some seconds, and tell how that went and what another one says then."""
        within, then = _seconds(request, "within"), request.query.get("then", "memory.stat")
        other = self.tree.file(f"{node.path.rpartition('/')[0]}/{then}")
        data = await _body(request)
        privileged = _is_privileged(request)
        failed = None
        late = threading.Event()
        timer = asyncio.get_running_loop().call_later(within, late.set)
        try:
            await _in_thread(lambda: node.write(data, privileged=privileged), late)
        except OSError as error:
            failed = _error_as_json(request, error)
        finally:
            timer.cancel()
        text = None
        with contextlib.suppress(FileNotFoundError):
            try:
                text = other.read()
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
        return web.json_response({"error": failed, "then": text})

    async def get_open(self, request: web.Request) -> web.Response:
        opened = self._opened(request)
        if "poll" not in request.query:
            return web.Response(text=opened.file.file.read())
        return web.json_response({"events": await self._poll(opened, _seconds(request, "poll"))})

    async def _poll(self, opened: _Open, timeout: float) -> int:
        file = opened.file.file
        events = file.poll(0)
        if events or not timeout:
            return events
        loop = asyncio.get_running_loop()
        news = asyncio.Event()

        def answer(_: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(news.set)

        key = object()
        opened.polls.add(key)
        try:
            self._watch.add(key, file, answer)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), timeout)
        finally:
            opened.polls.discard(key)
            self._watch.drop(key)
        return file.poll(0)

    async def put_open(self, request: web.Request) -> web.Response:
        opened = self._opened(request)
        data = await _body(request)
        unwanted = threading.Event()
        opened.writes.add(unwanted)
        try:
            await _in_thread(lambda: opened.file.write(data), unwanted)
        finally:
            opened.writes.discard(unwanted)
        return web.Response(status=204)

    async def delete_open(self, request: web.Request) -> web.Response:
        opened = self._opened(request)
        del self._open[int(request.match_info["number"])]
        opened.file.close()
        for key in list(opened.polls):
            self._watch.drop(key)
        for unwanted in opened.writes:
            unwanted.set()
        return web.Response(status=204)

    def _opened(self, request: web.Request) -> _Open:
        number = request.match_info["number"]
        # Eighteen digits: what int() reads at once, and more files than will ever be opened.
        opened = self._open.get(int(number)) if number.isdecimal() and len(number) <= 18 else None
        if opened is None:
            raise os_error(errno.EBADF, "no file is open under this number: POST opens one", request.path)
        opened.used = time.monotonic()
        return opened

    # About it all

    async def _mount(self, where: str, *, allow_other: bool) -> None:
        if not is_path(where):
            raise os_error(errno.EINVAL, "this is no path", ascii(where))
        if not os.path.isabs(where):
            raise os_error(errno.EINVAL, "where to mount has to be an absolute path", where)
        try:
            await _in_thread(lambda: self._mount_tree(where, allow_other))
        except ImportError as error:
            raise os_error(errno.EOPNOTSUPP, str(error), where) from error

    async def metrics(self, request: web.Request) -> web.Response:
        try:
            from uzswap.serve.metrics import BUCKETS, exposition
        except ImportError as error:
            raise os_error(errno.EOPNOTSUPP, str(error), request.path) from error
        accept = request.headers.get("Accept", "")
        zeros = _choice(request, "zeros", ("0", "1")) == "1"
        buckets = _choice(request, "buckets", BUCKETS)
        body, content_type = await _in_thread(lambda: exposition(self._engine, accept, zeros=zeros, buckets=buckets))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def stat(self, request: web.Request) -> web.Response:
        """What the files of a cgroup tell, or of a whole subtree, or some of these files, in one answer."""
        recursive = _choice(request, "recursive", ("0", "1")) == "1"
        cgroup = self._cgroup(request)
        names = request.query["files"].split(",") if "files" in request.query else FILES
        body = await _in_thread(lambda: take(cgroup, recursive=recursive).as_text(names).encode())
        return web.Response(body=body, content_type="application/json")

    async def ages(self, request: web.Request) -> web.Response:
        """What a subtree has in the pool, by age."""
        cgroup = self._cgroup(request)
        return web.Response(body=await _in_thread(lambda: _ages(cgroup)), content_type="application/json")

    async def report(self, request: web.Request) -> web.Response:
        """Where the memory of the process is; with a key, why its value is where it is."""
        cgroup = self._cgroup(request)
        key = request.query.get("key")
        return web.Response(body=await _in_thread(lambda: _report(cgroup, key)), content_type="application/json")

    def _cgroup(self, request: web.Request) -> MemCgroup:
        # A name may have bytes that are no text, which request.query would replace.
        query = parse_qs(request.rel_url.raw_query_string, errors="surrogateescape")
        return self._engine.tree.lookup(query.get("cgroup", ["/"])[0])

    async def metrics_of_one(self, request: web.Request) -> web.Response:
        """As :meth:`metrics`, for anybody: however many ask, it takes one thread."""
        async with self._scraping:
            return await self.metrics(request)

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(text=as_yaml(), content_type="application/yaml")


def _path(request: web.Request) -> str:
    """Return the path as it was asked for, bytes that are no text included, dots and all."""
    return os.fsdecode(unquote_to_bytes(request.rel_url.raw_path))


def _listing(directory: Directory) -> bytes:
    entries = [
        {
            "name": name,
            "type": "directory" if isinstance(node, Directory) else "file",
            "mode": f"{node.mode:04o}",
            "inode": node.inode,
        }
        for name, node in directory.nodes()
    ]
    told = {"inode": directory.inode, "entries": entries}
    return json.dumps(told).encode()  # escapes every character that is no text


def _ages(cgroup: MemCgroup) -> bytes:
    since, nbytes, entries = ages_of(cgroup)
    return json.dumps({"since": since, "bytes": nbytes, "entries": entries}).encode()


def _report(cgroup: MemCgroup, key: str | None) -> bytes:
    told = report_of(cgroup, columns=_STRIP).as_json() if key is None else why_as_json(cgroup, key)
    return json.dumps(told).encode()


def _choice(request: web.Request, name: str, choices: tuple[Choice, ...]) -> Choice:
    """Return one word of the query, by default the first."""
    text = request.query.get(name, choices[0])
    for choice in choices:
        if text == choice:
            return choice
    raise os_error(errno.EINVAL, f"{name}={text!r} is not one of {', '.join(choices)}", request.path)


def _seconds(request: web.Request, name: str) -> float:
    text = request.query[name]
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 <= value <= _LONGEST_POLL:
            return value
    raise os_error(errno.EINVAL, f"{name}={text!r}: seconds are wanted, 0 to {_LONGEST_POLL:g}", request.path)


def _is_privileged(request: web.Request) -> bool:
    """Whether the client, not this process, has CAP_SYS_RESOURCE."""
    peer: socket.socket | None = request.get_extra_info("socket")
    return peer is not None and is_privileged(peer_of(peer))


async def _body(request: web.Request) -> bytes:
    """Return what is to be written, or so much of it that it is refused as too much."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise os_error(errno.EINVAL, "a body is taken as it is: send no Content-Encoding", request.path)
    data = b""
    while len(data) <= MAX_WRITE and (more := await request.content.read(MAX_WRITE + 1 - len(data))):
        data += more
    return data


async def _in_thread(work: Callable[[], T], gone: threading.Event | None = None) -> T:
    """Run what can take long in a thread of its own; when the client goes, or ``gone`` is set, it is interrupted."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    gone = gone or threading.Event()

    def run() -> None:
        try:
            with on_behalf_of(gone.is_set):
                result = work()
        except BaseException as error:
            loop.call_soon_threadsafe(future.set_exception, error)
        else:
            loop.call_soon_threadsafe(future.set_result, result)

    start_thread("uzswap-request", run)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        gone.set()
        # It looks up between two batches; until it has, nothing that it uses may be closed.
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # nobody is left to be told
        raise


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer an error with its errno."""
    try:
        return await handler(request)
    except OSError as error:
        return _error(request, error)
    except web.RequestPayloadError as error:
        return _error(request, os_error(errno.EINVAL, f"this body is no HTTP: {error}"))
    except web.HTTPException as answer:  # no such route or method
        return _error(request, os_error(_ERRNO.get(answer.status, errno.EINVAL), answer.reason), answer.status)


def _error_as_json(request: web.Request, error: OSError) -> dict[str, Any]:
    number = error.errno or errno.EIO
    content: dict[str, Any] = {
        "errno": number,
        "error": errno.errorcode.get(number, str(number)),
        "message": error.strerror or str(error),
        "path": error.filename or request.path,
    }
    if isinstance(error, ReclaimError):
        content["result"] = dict(error.result.items())
    return content


def _error(request: web.Request, error: OSError, status: int | None = None) -> web.Response:
    content = _error_as_json(request, error)
    number = content["errno"]
    body = json.dumps(content).encode()  # escapes every character that is no text
    return web.Response(status=status or STATUS.get(number, 500), body=body, content_type="application/json")

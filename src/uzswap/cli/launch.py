"""Runs a Python program in a process that has an engine: what ``uzswap run`` becomes.

    python [OPTIONS] launch.py (SCRIPT | -m MODULE | -c CODE | -) [ARGUMENTS]

It is run by its path, so that neither the working directory nor the program's own can hide a module from it.  The
program finds ``sys.argv``, ``sys.path[0]`` and ``__main__`` as it would without; tracebacks begin with its own frames.

The engine is never closed: threads, ``atexit`` functions and destructors may use it until the very end, and the end of
the process frees everything.  Only what is seen outside, the socket and the mount, is taken away.
"""

from __future__ import annotations

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # this file's own directory, whose modules are nobody's top level

import atexit
import contextlib
import ctypes
import errno
import io
import os
import pkgutil
import runpy
import socket
import subprocess
from collections.abc import Callable
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from uzswap import MemCgroup, Zswap, managed, set_default_engine
from uzswap.cli.report import BAD_ARGUMENTS, FAILED, describe
from uzswap.cli.settings import Settings
from uzswap.client.runtime import runtime_directory
from uzswap.errors import InvalidArgumentError, os_error
from uzswap.files.engine import engine_file
from uzswap.probes.machine import kernel_waits


def main(arguments: list[str]) -> None:
    """Prepare everything, then become the program."""
    try:
        start(Settings.read(os.environ))
    except InvalidArgumentError as error:
        _fail(f"{error.strerror}", BAD_ARGUMENTS)
    except OSError as error:
        _fail(describe(error), FAILED)
    except ImportError as error:
        _fail(str(error), FAILED)
    become(arguments)


def start(settings: Settings) -> Zswap:
    """Make the engine as it is wanted, serve it, manage arrays.

    Raises
    ------
    OSError
        Whatever of it cannot be had.
    ImportError
        A library that it takes is not installed.
    """
    z = Zswap(**settings.engine)
    cgroup = z.cgroup(settings.cgroup)
    for name, text in settings.files.items():
        cgroup.write(name, text)
    for path, text in settings.engine_files.items():
        with engine_file(path).open(z, z.root) as file:
            file.write(text)
    if settings.socket or settings.metrics_port is not None:
        socket = settings.socket if isinstance(settings.socket, str) else None
        atexit.register(z.serve(socket, port=settings.metrics_port).close)
    _mount(z, settings.mount)
    if settings.managed:
        _manage(cgroup, settings.min_bytes)
    set_default_engine(z)
    # Until the very end: the interpreter's last step, when it drops all modules, shall not take it either.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(z))
    return z


def _mount(z: Zswap, where: bool | str | None) -> None:
    if where is False:
        return
    path = where if isinstance(where, str) else runtime_directory() / str(os.getpid())
    # Unless it was asked for, it is fine without.
    with contextlib.suppress(*(() if where else (OSError, ImportError))):
        mount = z.mount(path)
        atexit.register(mount.close)
        if z.faults == "signal" or not kernel_waits():
            atexit.register(_unmounter(str(mount.path)))  # runs before the other


def _unmounter(path: str) -> Callable[[], None]:
    """Start a process that unmounts when told, or when this one is gone.

    Where the kernel does not wait for pages, the first array has setuid programs do nothing for this process any more
    (core/trap.py), and only fusermount3 may unmount for an ordinary user.  It is nobody's child, so that a program
    that waits for any of its own does not meet it, and keeps none of the program's files open.
    """
    ours, its = socket.socketpair()
    with its:
        subprocess.run(
            ["sh", "-c", 'exec 3<&0; (read _ <&3; exec fusermount3 -u -q -z -- "$0") <&3 &', path],
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            check=False,
        )

    process = os.getpid()

    def unmount() -> None:
        if os.getpid() != process:
            return  # a forked child that ends: the mount is its parent's
        with ours:
            ours.shutdown(socket.SHUT_WR)
            ours.recv(1)  # until it has ended

    return unmount


def _manage(cgroup: MemCgroup, min_bytes: str) -> None:
    try:
        managed(cgroup, min_bytes=min_bytes).start()
    except OSError as error:
        text = f"arrays cannot be managed here: {error.strerror}; uzswap doctor says why, or set UZSWAP_MANAGED=no"
        raise os_error(error.errno or errno.EIO, text) from error


def become(arguments: list[str]) -> None:
    """Run the program as ``__main__``, as the interpreter itself does it (Modules/main.c, pymain_run_python)."""
    kind, *rest = arguments
    main_module = ModuleType("__main__")
    main_module.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main_module
    try:
        if kind == "-m":
            sys.argv = ["-m", *rest[1:]]  # runpy puts the module's file in its place
            _search_first(os.getcwd())
            _run_module(rest[0], alter_argv=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            _search_first("")
            _execute(main_module, lambda: _compile(rest[0], "<string>"))
        elif kind == "-":
            sys.argv = ["-", *rest]
            _search_first("")
            main_module.__file__ = "<stdin>"
            _execute(main_module, lambda: _compile(sys.stdin.read(), "<stdin>"))
        elif _is_importable(kind):
            sys.argv = [kind, *rest]
            sys.path.insert(0, kind)
            _run_module("__main__", alter_argv=False)
        else:
            sys.argv = [kind, *rest]
            _search_first(os.path.dirname(os.path.realpath(kind)))
            _run_script(main_module, kind)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook = _without_our_frames(sys.excepthook)
        raise


def _search_first(directory: str) -> None:
    if not sys.flags.safe_path:
        sys.path.insert(0, directory)


def _is_importable(path: str) -> bool:
    """Whether it is a directory or an archive with a ``__main__``."""
    return pkgutil.get_importer(path) is not None


def _run_module(name: str, *, alter_argv: bool) -> None:
    # What python -m calls; the public run_module() would put another __main__ back when threads still use this one.
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_script(module: ModuleType, path: str) -> None:
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as error:
        _fail(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}", BAD_ARGUMENTS)
    module.__file__ = path
    module.__dict__["__cached__"] = None
    _execute(module, lambda: _compile(source, path))


def _compile(source: str | bytes, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def _execute(module: ModuleType, code: Callable[[], CodeType]) -> None:
    exec(code(), module.__dict__)


def _without_our_frames(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return an excepthook that shows a traceback from the program's first frame on."""

    def shown(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        hook(kind, error.with_traceback(trace), trace)

    return shown


def _fail(text: str, code: int) -> NoReturn:
    print(f"uzswap run: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])

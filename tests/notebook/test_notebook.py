"""``%load_ext uzswap`` in a real kernel, as nbclient and JupyterLab run one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.child import run
from tests.support.seccomp import can_refuse

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))),
        reason="a kernel is not installed: pip install ipykernel nbclient",
    ),
]


@pytest.fixture
def can_have_arrays(engine: EngineFactory) -> None:
    try:
        engine().arena.open()
    except OSError as refused:
        pytest.skip(f"{refused.strerror}")


#: cell(text) runs a cell and returns its outputs; a cell that fails fails the test
CLIENT = """
import os, sys, tempfile
os.environ.setdefault("IPYTHONDIR", tempfile.mkdtemp(dir=sys.argv[1]))
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

notebook = nbformat.v4.new_notebook()
client = NotebookClient(notebook, kernel_name="python3", timeout=120)

def cell(text):
    notebook.cells.append(nbformat.v4.new_code_cell(text))
    return client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1).outputs
"""


@pytest.mark.usefixtures("can_have_arrays")
def test_a_notebook(tmp_path: Path) -> None:
    """Arrays are managed, shown, given back by an idle kernel, and come back on a touch."""
    run(
        CLIENT
        + """
fifo = os.path.join(sys.argv[1], "told")
os.mkfifo(fifo)
with client.setup_kernel():
    (said,) = cell("%load_ext uzswap")
    assert "without a cell for 10 min memory goes to zswap" in said["text"], said
    cell("import numpy as np, uzswap\\nx = np.arange(1 << 20)\\nsmall = np.arange(100)\\nstore = None")
    cell("assert uzswap.info(x).cgroup == '/notebook'")
    cell("import asyncio\\nawait asyncio.sleep(0)\\ny = np.ones((1024, 512))\\nassert uzswap.info(y)")
    cell("store = uzswap.Store(uzswap.default_engine().cgroup('/store'))\\nstore[0] = ['<b>'] * 1000")

    cell("import pandas as pd\\nframe = pd.DataFrame({'a': np.arange(1 << 18), 'b': np.ones(1 << 18), 's': 'x'})")
    cell("part = x[5:]")

    (shown,) = cell("%uzswap")
    lines = shown["data"]["text/plain"].splitlines()
    assert lines[0].split() == ["name", "what", "bytes", "resident", "zswap", "disk", "cgroup"], lines
    assert lines[1].split() == "x int64 (1048576,) 8.0 MiB 8.0 MiB 0 B 0 B /notebook".split(), lines
    assert [line.split()[0] for line in lines[1:6]] == ["x", "part", "y", "frame", "store"], lines
    assert "int64 (1048571,), a view of" in lines[2] and "DataFrame (262144, 3)" in lines[4], lines
    assert "<td>x</td><td>int64 (1048576,)</td><td>8.0 MiB</td>" in shown["data"]["text/html"]

    # Idle: what is told comes by a pipe, since a cell that waited for it would not be idle.
    cell(f"import os\\nfrom uzswap.notebook.extension import _loaded\\nfd = os.open({fifo!r}, os.O_RDWR)")
    cell("_loaded[get_ipython()].idle.told = lambda stage: os.write(fd, stage.value.encode() + b'\\\\n')")
    with open(fifo) as told:
        cell("%uzswap idle 20ms")
        assert [told.readline(), told.readline()] == ["zswap\\n", "disk\\n"]
    cell("%uzswap idle off\\nfound = uzswap.info(x)")
    cell("assert found.resident == 0 and found.disk > 7 << 20, found")
    cell("assert x.sum() == (1 << 20) * ((1 << 20) - 1) // 2 and uzswap.info(x).resident == 8 << 20")
    cell("assert store.where(0) == 'disk' and len(store[0]) == 1000")

    cell("%uzswap memory.max 64M")
    (shown,) = cell("%uzswap memory.max")
    assert shown["data"]["text/plain"] == "67108864", shown
    (shown,) = cell("%uzswap idle")
    assert shown["data"]["text/plain"] == "an idle kernel keeps its memory"
    for wrong in ("idle 0", "idle soon", "memory.nothing", "memory.max much"):
        try:
            cell(f"%uzswap {wrong}")
        except CellExecutionError as error:
            assert f"UsageError: %uzswap {wrong}: " in str(error), error
        else:
            raise AssertionError(wrong)
    cell("big = np.arange(12 << 20)\\nassert uzswap.info(big).resident < 64 << 20 and big[-1] == (12 << 20) - 1")

    cell("%unload_ext uzswap")
    cell("z = np.arange(1 << 20)\\ntry: uzswap.info(z)\\nexcept ValueError: pass\\nelse: raise AssertionError(z)")
    cell("assert x[5] == 5 and 'uzswap' not in get_ipython().magics_manager.magics['line']")
    cell("%load_ext uzswap")
    cell("z = np.arange(1 << 20)\\nassert uzswap.info(z)")
""",
        [str(tmp_path)],
    ).check()


@pytest.mark.skipif(
    not can_refuse(), reason="the numbers of this machine's system calls: add them to support/seccomp.py"
)
def test_where_there_can_be_no_arrays_it_says_so_and_changes_nothing(tmp_path: Path) -> None:
    run(
        """
        import errno, os, sys
        os.environ["IPYTHONDIR"] = sys.argv[1]
        from tests.support.seccomp import refuse_userfaultfd
        from IPython.core.interactiveshell import InteractiveShell
        import uzswap

        refuse_userfaultfd(errno.EPERM)
        shell = InteractiveShell.instance()
        before = {name: list(found) for name, found in shell.events.callbacks.items()}
        found = shell.run_cell("%load_ext uzswap")
        assert "no paged arrays here" in str(found.error_in_exec) and "Remedy" in str(found.error_in_exec)
        assert before == shell.events.callbacks and "uzswap" not in shell.magics_manager.magics["line"]
        try:
            uzswap.default_engine()
        except OSError as error:
            assert error.errno == errno.ENODEV
        """,
        [str(tmp_path)],
    ).check()

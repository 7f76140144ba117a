"""run: a program with an engine of its own, that is otherwise as it would be without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.command import started, uzswap
from tests.serve.conftest import needs_fuse

from uzswap.cli.main import run
from uzswap.cli.settings import Settings
from uzswap.probes import machine
from uzswap.probes.finding import Level

#: arrays are the subject of one test only, the others run where there is no userfaultfd as well
PLAIN = {"UZSWAP_MANAGED": "no", "UZSWAP_SWAP_SIZE": "64M"}
PYTHON = sys.executable
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)


def program(directory: Path, code: str, name: str = "program.py") -> str:
    path = directory / name
    path.write_text(code)
    return str(path)


def without(*command: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same program without an engine."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=cwd, env=environment)


TELLS = """
import json, sys
main = sys.modules["__main__"]
told = [sys.argv, sys.path[:2], __name__, main.__dict__ is globals(), __spec__ and __spec__.name,
        globals().get("__file__"), sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions]
print(json.dumps(told))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["{script}"],
        ["{script}", "-x", "--json", "--", "-m"],
        ["-O", "-X", "dev", "{script}", "a"],
        ["-OXdev", "-Werror", "{script}", "a"],
        ["-m", "module", "a", "-b"],
        ["-Om", "module"],
        ["-mmodule", "c"],
        ["-m", "package"],
        ["-c", TELLS, "a", "-m"],
        ["-P", "{script}"],
        ["-", "a"],
        ["{directory}/package", "a"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(TELLS, "CODE"),
)
def test_a_program_finds_what_it_would_find_without(arguments: list[str], tmp_path: Path) -> None:
    program(tmp_path, TELLS, "module.py")
    (tmp_path / "package").mkdir()
    program(tmp_path / "package", TELLS, "__main__.py")
    names = {"script": program(tmp_path, TELLS), "directory": str(tmp_path)}
    command = [PYTHON, *(word if word == TELLS else word.format(**names) for word in arguments)]
    os.chdir(tmp_path)
    try:
        expected = without(*command, stdin=TELLS)
        done = uzswap("run", "--", *command, stdin=TELLS)
    finally:
        os.chdir("/")
    assert expected.returncode == 0, expected.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(expected.stdout)


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a message')",
        "raise SystemExit",
        "def f():\n    return 1 / 0\nf()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error",
        "def f(:",
        "import sys\nsys.excepthook = lambda kind, error, trace: print(kind.__name__, trace.tb_lineno)\n1 / 0",
        "import atexit\natexit.register(print, 'the end')\nraise KeyError('x')",
        "import threading\nthreading.Timer(0.01, print, ['later']).start()",
        "raise KeyboardInterrupt",
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os; os.abort()",
        "import pickle\nclass C: pass\npickle.loads(pickle.dumps(C()))\nprint('pickled')",
        "import sys\nprint('out'); print('err', file=sys.stderr)",
    ],
)
def test_a_program_ends_as_it_would_without(code: str, tmp_path: Path) -> None:
    script = program(tmp_path, code)
    expected = without(PYTHON, script)
    done = uzswap("run", "--", PYTHON, script)
    assert (done.returncode, done.stdout, done.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    done = uzswap("run", "--", PYTHON, str(tmp_path / "no.py"))
    assert done.returncode == without(PYTHON, str(tmp_path / "no.py")).returncode == 2
    assert "no.py" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_module_that_is_not_there() -> None:
    assert uzswap("run", "--", PYTHON, "-m", "no_such").stderr == without(PYTHON, "-m", "no_such").stderr


def test_multiprocessing_finds_main(tmp_path: Path) -> None:
    code = """
import multiprocessing, uzswap
def work(n):
    try:
        uzswap.default_engine()
    except OSError as error:
        return n * n, error.errno
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, [2, 3]))
"""
    done = uzswap("run", "--", PYTHON, program(tmp_path, code))
    assert (done.stdout, done.stderr) == ("[(4, 19), (9, 19)]\n", "")


WAITS = """
import sys, uzswap
z = uzswap.default_engine()
z.cgroup("/mine")
print("ready", flush=True)
sys.stdin.readline()
print(z.cgroup("/mine").read("memory.high"), end="")
z.check()
"""


@contextmanager
def waiting(tmp_path: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    with started("run", "--", PYTHON, program(tmp_path, WAITS), env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        yield process


def test_it_is_found_while_it_runs_and_leaves_nothing(tmp_path: Path, runtime: Path, capsys: Output) -> None:
    with waiting(tmp_path) as process:
        assert run(["write", "cgroup/mine/memory.high", "64M"]) == 0
        assert run(["engines", "--json"]) == 0
        (entry,) = json.loads(capsys.readouterr().out)
        assert entry["pid"] == process.pid
        assert "program.py" in entry["command"]
        out, err = process.communicate("\n")
    assert (process.returncode, out, err) == (0, "67108864\n", "")
    assert run(["engines", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert list(runtime.iterdir()) == []


@needs_fuse
def test_it_is_mounted_in_the_runtime_directory_or_where_it_is_wanted(
    tmp_path: Path, runtime: Path, mount_point: Path
) -> None:
    with waiting(tmp_path) as process:
        assert (runtime / str(process.pid) / "cgroup/mine/memory.high").read_text() == "max\n"
        process.communicate("\n")
    with waiting(tmp_path, UZSWAP_MOUNT=str(mount_point)) as process:
        assert (mount_point / "cgroup/mine/memory.high").read_text() == "max\n"
        process.communicate("\n")
    assert not any(mount_point.iterdir())
    with waiting(tmp_path, UZSWAP_MOUNT="no") as process:
        assert not (runtime / str(process.pid)).exists()
        process.communicate("\n")


def test_a_socket_where_it_is_wanted_or_none(tmp_path: Path, runtime: Path, capsys: Output) -> None:
    with waiting(tmp_path, UZSWAP_SOCKET=str(runtime.parent / "s")) as process:
        assert (runtime.parent / "s").is_socket()
        assert run(["ls"]) == 0
        process.communicate("\n")
    with waiting(tmp_path, UZSWAP_SOCKET="no", UZSWAP_MOUNT="no") as process:
        assert run(["ls"]) == 1
        process.communicate("\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_the_program(number: signal.Signals, tmp_path: Path, runtime: Path) -> None:
    with waiting(tmp_path) as process:
        process.send_signal(number)
        process.communicate()
    assert process.returncode == -number
    # What it could not take away itself is taken away by whoever looks next.
    assert run(["engines"]) == 0
    assert list(runtime.iterdir()) == []


def test_a_toml_file_and_the_environment(tmp_path: Path) -> None:
    config = tmp_path / "uzswap.toml"
    config.write_text(
        'swap_size = "64M"\nwalk = "coldest"\ncompressor = "zstd"\nmanaged = false\ncgroup = "/jobs/x"\n'
        '"memory.high" = "32M"\n"zswap/parameters/max_pool_percent" = 7\n"memory.zswap.writeback" = false\n'
    )
    code = """
import uzswap
z = uzswap.default_engine()
x = z.root.children["jobs"].children["x"]
print(z.walk.name, *(x.read(f).strip() for f in ("memory.high", "memory.max", "memory.zswap.writeback")),
      *(z.parameters.get(p) for p in ("max_pool_percent", "compressor")))
"""
    script = program(tmp_path, code)
    expected = "coldest 33554432 16777216 0 7 zstd:9\n"
    more = {"UZSWAP_MEMORY_MAX": "16M", "UZSWAP_COMPRESSOR": "zstd:9"}
    for arguments, env in ((["--config", str(config)], more), ([], {**more, "UZSWAP_CONFIG": str(config)})):
        done = uzswap("run", *arguments, "--", PYTHON, script, env=env)
        assert (done.stdout, done.stderr) == (expected, "")


def test_options_win(tmp_path: Path) -> None:
    """Every setting is an option, and so is every control file."""
    code = """
import uzswap
z = uzswap.default_engine()
x = z.root.children["program"]
print(*(x.read(f).strip() for f in ("memory.max", "uzswap.resident.max", "memory.high")), z.walk.name,
      z.parameters.get("max_pool_percent"))
"""
    options = [
        "--memory-max", "3M", "--resident-max=2M", "--walk", "coldest", "--zswap-parameters-max-pool-percent", "9",
    ]  # fmt: skip
    env = {"UZSWAP_MEMORY_MAX": "16M", "UZSWAP_MEMORY_HIGH": "8M", "UZSWAP_MANAGED": "no"}
    done = uzswap("run", *options, "--", PYTHON, program(tmp_path, code), env=env)
    assert (done.stdout, done.stderr) == (f"{3 << 20} {2 << 20} {8 << 20} coldest 9\n", "")


def test_an_option_that_is_none(capsys: Output) -> None:
    assert run(["run", "--memory-maximum", "3G", "--", PYTHON, "-c", "0"]) == 2
    assert "did you mean --memory-max?" in capsys.readouterr().err
    assert run(["run", "--swap-size", "much", "--", PYTHON, "-c", "0"]) == 2
    assert "much" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("UZSWAP_SWAPSIZE", "1G", "UZSWAP_SWAP_SIZE"),
        ("UZSWAP_SWAP_SIZE", "much", "'much'"),
        ("UZSWAP_NODES", "two", "'two'"),
        ("UZSWAP_MANAGED", "perhaps", "'perhaps'"),
        ("UZSWAP_CGROUP", "x", "slash"),
        ("UZSWAP_CONFIG", "{}/bad.toml", "bad.toml"),
        ("UZSWAP_CONFIG", "{}/unknown.toml", "swap_size"),
        ("UZSWAP_CONFIG", "{}/list.toml", "swap"),
    ],
)
def test_bad_settings_are_one_line_and_nothing_runs(
    name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (tmp_path / "bad.toml").write_text("swap =")
    (tmp_path / "unknown.toml").write_text('swapsize = "1G"')
    (tmp_path / "list.toml").write_text("swap = [1]")
    monkeypatch.setenv(name, value.format(tmp_path))
    assert run(["run", "--", PYTHON, "-c", "print('ran')"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("env", "code", "said"),
    [
        ({"UZSWAP_NODES": "99"}, 2, "nodes=99"),
        ({"UZSWAP_WALK": "random"}, 1, "random"),
        ({"UZSWAP_SWAP": "/no/such/swap"}, 1, "/no/such"),
        ({"UZSWAP_MEMORY_HIGH": "much"}, 1, "'much'"),
        ({"UZSWAP_CGROUP": "/", "UZSWAP_MEMORY_HIGH": "1G"}, 1, "memory.high"),
        ({"UZSWAP_MOUNT": "/no/such/mount"}, 1, "/no/such/mount"),
        ({"UZSWAP_CONFIG": "/no/such/file"}, 1, "/no/such/file"),
        ({"UZSWAP_METRICS_PORT": "70000"}, 1, "70000"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_nothing_runs(env: dict[str, str], code: int, said: str) -> None:
    done = uzswap("run", "--", PYTHON, "-c", "print('ran')", env=env)
    assert done.returncode == code
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("uzswap")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ([], 2, "Missing"),
        (["--"], 2, "Missing"),
        (["--", "ls", "-l"], 1, "no Python program"),
        (["--", "no-such-program"], 1, "no such program"),
        (["--", "python9.99", "x.py"], 1, "no such interpreter"),
        (["--", PYTHON], 2, "no program to run"),
        (["--", PYTHON, "-V"], 2, "no program to run"),
        (["--", PYTHON, "-X"], 2, "no program to run"),
        (["--", PYTHON, "-c"], 2, "-c takes an argument"),
    ],
)
def test_what_is_no_python_program(command: list[str], code: int, said: str, capsys: Output) -> None:
    assert run(["run", *command]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_an_interpreter_without_uzswap(tmp_path: Path, capsys: Output) -> None:
    bare = tmp_path / "bare"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", bare], check=True)
    done = uzswap("run", "--", str(bare / "bin/python"), "-c", "print('ran')", env={"PYTHONPATH": ""})
    if "No module named 'uzswap'" in done.stderr:
        pytest.skip("the command itself needs PYTHONPATH: install uzswap into the environment of the tests")
    assert done.returncode == 1
    assert "this interpreter has no uzswap" in done.stderr
    assert done.stderr.endswith("(ENOPKG)\n")


def test_a_program_that_names_its_interpreter(tmp_path: Path) -> None:
    for line in (f"#!{PYTHON} -O", f"#!/usr/bin/env -S {PYTHON} -O"):
        path = Path(program(tmp_path, f"{line}\nimport sys; print(sys.argv[1:], sys.flags.optimize)", "tool"))
        path.chmod(0o755)
        assert uzswap("run", "--", str(path), "a").stdout == "['a'] 1\n"


def test_help_lists_the_settings(capsys: Output) -> None:
    assert run(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--swap-size" in shown
    assert "--memory-high" in shown


def test_defaults() -> None:
    assert Settings.read({"HOME": "/", "UZSWAP_ENGINE": "1"}) == Settings()


ARRAYS = """
import atexit, sys, numpy as np, uzswap
z = uzswap.default_engine()
a = z.cgroup("{cgroup}")
x = np.arange(1 << 20)
small = np.ones(10)
assert uzswap.info(x).cgroup == "{cgroup}"
before = a.stats()["anon"]
a.reclaim("4M")
print(before >= x.nbytes, a.stats()["zswapped"] > 0, bool((x == np.arange(1 << 20)).all()))
class Last:
    def __del__(self, x=x):  # the interpreter's last step: modules are going
        print(all(x.item(k) == k for k in range(0, 1 << 20, 512)))
last = Last()
atexit.register(lambda: print(int(x[-1])))
"""


@pytest.fixture
def userfaultfd() -> None:
    if all(finding.level is Level.MISSING for finding in machine.userfaultfd()):
        pytest.skip("arrays need userfaultfd: sysctl vm.unprivileged_userfaultfd=1, or run the tests as root")


@pytest.mark.usefixtures("userfaultfd")
@pytest.mark.parametrize("cgroup", ["/program", "/jobs/x"])
def test_arrays_are_managed_until_the_very_end(cgroup: str, tmp_path: Path) -> None:
    script = program(tmp_path, ARRAYS.replace("{cgroup}", cgroup))
    env = {"UZSWAP_MANAGED": "yes", "UZSWAP_CGROUP": cgroup}
    done = uzswap("run", "--", PYTHON, "-X", "dev", script, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True True\n1048575\nTrue\n", "")


@pytest.mark.usefixtures("userfaultfd")
def test_a_budget_from_the_environment_holds(tmp_path: Path) -> None:
    code = """
import numpy as np, uzswap
arrays = [np.full(1 << 20, k) for k in range(16)]
z = uzswap.default_engine()
print(max(int(z.cgroup("/program").read("memory.current")), 0) <= 32 << 20)
print(all((array == k).all() for k, array in enumerate(arrays)))
"""
    env = {"UZSWAP_MANAGED": "yes", "UZSWAP_MEMORY_MAX": "32M", "UZSWAP_MIN_BYTES": "64K", "UZSWAP_SWAP_SIZE": "1G"}
    done = uzswap("run", "--", PYTHON, program(tmp_path, code), env=env)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")

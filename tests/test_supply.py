"""What the package depends on: declared, and without vulnerabilities that are known."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: module -> what brings it, where the names differ
BROUGHT_BY = {"cython": "cython", "IPython": "ipython", "prometheus_client": "prometheus-client"}

#: to build with; for mypy alone; used where it is there
OTHERS = {"cython", "typing_extensions", "zstandard"}


def declared() -> set[str]:
    extras = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {re.split(r"[<>=~\[ ;]", line)[0].lower() for lines in extras for line in lines}


def imported() -> dict[str, str]:
    """Each module that is not Python's own or ours -> a file that imports it."""
    found = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "uzswap":
                    found[top] = str(path.relative_to(ROOT))
    return found


def test_what_is_imported_is_declared() -> None:
    known = declared() | OTHERS
    missing = {name: where for name, where in imported().items() if BROUGHT_BY.get(name, name).lower() not in known}
    assert missing == {}


def test_nothing_that_is_installed_has_a_known_vulnerability() -> None:
    if os.environ.get("UZSWAP_AUDIT") != "1":
        pytest.skip("looking for known vulnerabilities needs the network: make audit")
    if importlib.util.find_spec("pip_audit") is None:
        pytest.skip("no pip-audit: pip install pip-audit")
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner=off", "--format=json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    unreachable = "the database of vulnerabilities cannot be reached: run it where pypi.org can be"
    if re.search("ConnectionError|ServiceError|Max retries|HTTPError|Temporary failure", done.stderr):
        pytest.skip(unreachable)
    assert done.stdout, done.stderr
    packages = json.loads(done.stdout)["dependencies"]
    # A mirror of packages alone knows none of them there, which is no error to pip-audit.
    audited = {package["name"]: package["vulns"] for package in packages if "skip_reason" not in package}
    if not audited:
        pytest.skip(unreachable)
    assert {name: found for name, found in audited.items() if found} == {}

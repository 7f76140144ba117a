"""docs/openapi.yaml: it is what the table says, and what the server does."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, settings
from requests.adapters import HTTPAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from tests.conftest import EngineFactory
from tests.support.soak import longer
from tests.support.states import fill
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from uzswap import Zswap
from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES
from uzswap.serve.openapi import as_yaml, document

PAGE = Path(__file__).parents[2] / "docs" / "openapi.yaml"


def test_the_page_is_what_the_table_says() -> None:
    made = subprocess.run([sys.executable, "-m", "uzswap.serve.openapi"], capture_output=True, text=True, check=True)
    assert PAGE.read_text() == made.stdout, "run: python -m uzswap.serve.openapi > docs/openapi.yaml"


def test_the_yaml_is_the_document() -> None:
    assert yaml.safe_load(as_yaml()) == document()


def test_every_file_is_in_it() -> None:
    paths = document()["paths"]
    for path, engine_row in ENGINE_FILES.items():
        assert ("put" in paths[f"/{path}"]) == engine_row.writable
    for name, row in FILES.items():
        item = paths[f"/cgroup/{{cgroup}}/{name}"]
        assert ("get" in item, "put" in item) == (row.reader is not None, row.writable)
        assert (f"/cgroup/{name}" in paths) == row.on_root


# The server does what it says


class _Connection(HTTPConnection):
    """To a Unix socket, whatever host is asked for."""

    def __init__(self, *arguments: Any, path: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._path = path

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._path)
        return connection


class _Adapter(HTTPAdapter):
    """Has requests use a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = HTTPConnectionPool("localhost", path=str(path))
        self._pool.ConnectionCls = _Connection  # type: ignore[assignment]

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()


@pytest.fixture
def served(engine: EngineFactory, tmp_path: Path) -> Iterator[tuple[Zswap, requests.Session]]:
    """An engine that has something to read and to reclaim, and a session on its socket."""
    z = engine(swap_size="16M")
    fill(z, z.cgroup("/jobs/a"), 20, 1000)
    with z.serve(tmp_path / "s") as server, requests.Session() as session:
        session.mount("http://", _Adapter(server.path))
        yield z, session


schema = schemathesis.openapi.from_path(PAGE)


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=longer(2, 20),
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_a_server_error(served: tuple[Zswap, requests.Session], case: schemathesis.Case) -> None:
    z, session = served
    if case.path == "/open/{number}" and "poll" in case.query:
        case.query["poll"] = 0
    response = case.call(session=session, base_url="http://localhost")
    case.validate_response(response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])
    z.check()

"""An engine with a page, and Debian's Chromium to look at it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.conftest import EngineFactory
from tests.serve.conftest import private
from tests.support.chromium import MISSING, chromium, complaints, is_there
from tests.support.states import fill

from uzswap import Zswap

pytest.importorskip("bokeh", reason="the page needs bokeh: pip install 'uzswap[web]'")

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from uzswap.serve.server import Server

__all__ = ["private"]

#: seconds; longer is broken
PATIENCE = 60.0
#: where screenshots are kept
PICTURES = Path("build/web")


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    z = engine()
    for path, pages, length in (("/jobs/a", 400, 1000), ("/jobs/b", 200, 2000), ("/web", 100, 3000)):
        fill(z, z.cgroup(path), pages, length)
    z.cgroup("/jobs/a").write("memory.max", "8M")
    return z


@pytest.fixture
def server(z: Zswap, private: Path) -> Iterator[Server]:
    with z.serve(private / "s", web=True) as server:
        yield server


class Site:
    """The page's requests, without a browser."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.port = parts.port
        self.token = parse_qs(parts.query)["token"][0]

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> tuple[int, str, http.client.HTTPMessage]:
        """Return status, text and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            given = {"X-Uzswap-Token": self.token if token is None else token, **(headers or {})}
            connection.request(method, path, None if body is None else json.dumps(body), given)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def feed(self, cgroup: str = "/", **query: Any) -> dict[str, Any]:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        status, text, _ = self.ask("GET", f"/feed?cgroup={cgroup}{more}")
        assert status == 200, text
        found: dict[str, Any] = json.loads(text)
        return found


@pytest.fixture
def site(server: Server) -> Site:
    assert server.url is not None
    return Site(server.url)


class Browser:
    """A page, open in Chromium."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def until(self, what: Callable[[], Any]) -> Any:
        """Wait until it is true; return what it is."""
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.1).until(lambda _: what())

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)  # type: ignore[no-untyped-call]

    def text(self, element: str) -> str:
        return str(self.run(f"return document.getElementById('{element}').textContent"))

    def looks(self) -> int:
        """How often the page has had news."""
        return int(self.run("return document.body.dataset.looks || 0"))

    def another_look(self) -> None:
        before = self.looks()
        self.until(lambda: self.looks() > before)

    def plotted(self, source: str, column: str) -> list[Any]:
        """What a column of a plot has."""
        values: list[Any] = self.run(f"return Array.from(named('{source}')[0].data['{column}'])")
        return values

    def picture(self, name: str, width: int, height: int) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.driver.set_window_size(width, height)
        self.another_look()
        assert self.driver.save_screenshot(PICTURES / f"{name}.png")


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    if not is_there():
        pytest.skip(MISSING)
    with chromium() as opened:
        opened.get(server.url)
        one = Browser(opened)
        one.until(lambda: one.looks() > 0)
        yield one
        # A request that is refused is one of the network's, and what the test wants.
        assert not complaints(opened)

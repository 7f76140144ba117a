"""The page's requests: who may, what they answer, and what cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import started
from tests.conftest import EngineFactory
from tests.support.states import fill
from tests.web.conftest import Site

from uzswap import TraceEvent, Zswap
from uzswap.web.history import DAY, FIELDS, HOUR, History
from uzswap.web.server import Engines, serve
from uzswap.web.treemap import Rectangle, squarified

REQUESTS = (
    ("GET", "/"),
    ("GET", "/feed"),
    ("PUT", "/limit"),
    ("POST", "/reclaim"),
    ("DELETE", "/request?number=1"),
)


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_who_may(site: Site, method: str, path: str) -> None:
    here = f"127.0.0.1:{site.port}"
    refused: tuple[tuple[str, dict[str, str]], ...] = (
        ("", {}),
        ("wrong", {}),
        (site.token[:-1], {}),
        ("\udcff".encode(errors="surrogateescape").decode("latin-1"), {}),
        (site.token, {"Origin": "http://evil.example"}),
        (site.token, {"Origin": "null"}),
        (site.token, {"Origin": f"https://{here}"}),
        (site.token, {"Origin": "http://127.0.0.1:1"}),
        (site.token, {"Host": "evil.example"}),
        (site.token, {"Host": f"evil.example:{site.port}"}),
        (site.token, {"Sec-Fetch-Site": "cross-site"}),
        (site.token, {"Sec-Fetch-Site": "same-site"}),
    )
    for token, headers in refused:
        status, text, answered = site.ask(method, path, {}, token=token, headers=headers)
        assert status == 403, (token, headers)
        assert text.startswith("403: ")
        assert not [name for name in answered if name.lower().startswith("access-control")]
    for headers in ({}, {"Origin": f"http://{here}"}, {"Host": f"localhost:{site.port}", "Sec-Fetch-Site": "none"}):
        assert site.ask(method, path, {}, headers=headers)[0] != 403


def test_a_preflight_of_another_origin_allows_nothing(site: Site) -> None:
    asking = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    status, _, headers = site.ask("OPTIONS", "/reclaim", headers=asking)
    assert status >= 400
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_the_page_works_offline(site: Site) -> None:
    """Nothing in it is fetched from elsewhere, and no script runs but its own."""
    status, text, headers = site.ask("GET", f"/?token={site.token}", token="")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert text.count("<script") == text.count(f'<script nonce="{nonce}">') == 3
    assert "<script src" not in text
    assert '<link rel="stylesheet"' not in text
    assert headers["Cache-Control"] == "no-store"
    again = site.ask("GET", f"/?token={site.token}", token="")[2]["Content-Security-Policy"]
    assert again != policy


def test_metrics_are_beside_it(site: Site) -> None:
    assert "uzswap_memory_current_bytes" in site.ask("GET", "/metrics", token="")[1]


def test_feed(z: Zswap, site: Site) -> None:
    told = site.feed()
    assert told["now"]["zswap"] == 1_100_000
    assert [row["cgroup"] for row in told["cgroups"]] == ["/", "/jobs", "/jobs/a", "/jobs/b", "/web"]
    assert told["limits"] == {"memory.zswap.writeback": 1}
    assert told["series"]["zswap"][-1] == 1_100_000
    areas = dict(zip(told["rectangles"]["cgroup"], told["rectangles"]["told"], strict=True))
    assert areas == {"/jobs/a": "400000 bytes", "/jobs/b": "400000 bytes", "/web": "300000 bytes"}
    told = site.feed("/jobs/a", since=told["series"]["time"][-1])
    assert told["limits"]["memory.max"] == 8 << 20
    assert told["limits"]["memory.high"] == "max"
    assert sum(told["ages"]["bytes"]) == 400_000
    assert site.feed("/nobody")["gone"]


def test_wrong_requests(z: Zswap, site: Site) -> None:
    a = z.cgroup("/jobs/a")
    name = site.feed()["engine"]
    wrong: tuple[tuple[str, str, dict[str, str] | None, str], ...] = (
        ("GET", "/feed?since=x", None, "EINVAL"),
        ("GET", "/feed?since=-1", None, "EINVAL"),
        ("GET", "/feed?since=inf", None, "EINVAL"),
        ("PUT", "/limit?engine=nobody", {}, "ENOENT"),
        ("PUT", f"/limit?engine={name}", None, "EINVAL"),
        ("PUT", f"/limit?engine={name}", {"cgroup": "/jobs/a"}, "EINVAL"),
        ("PUT", f"/limit?engine={name}", {"cgroup": "/jobs/a", "file": "memory.max", "value": "lots"}, "EINVAL"),
        ("PUT", f"/limit?engine={name}", {"cgroup": "/nobody", "file": "memory.max", "value": "1"}, "ENOENT"),
        ("PUT", f"/limit?engine={name}", {"cgroup": "/jobs/a", "file": "memory.reclaim", "value": "1M"}, "EACCES"),
        ("PUT", f"/limit?engine={name}", {"cgroup": "/..", "file": "../memory.max", "value": "1M"}, "EACCES"),
        ("POST", f"/reclaim?engine={name}", {"cgroup": "/nobody", "text": "1M"}, "ENOENT"),
        ("POST", f"/reclaim?engine={name}", {"text": "1M"}, "EINVAL"),
        ("DELETE", f"/request?engine={name}&number=7", None, "ENOENT"),
    )
    for method, path, body, expected in wrong:
        status, text, _ = site.ask(method, path, body)
        assert (status, expected in text) == (400, True), (path, body, text)
    assert a.read("memory.max") == f"{8 << 20}\n"


def request_of(site: Site, number: int) -> dict[str, object]:
    (one,) = [one for one in site.feed()["requests"] if one["number"] == number]
    found: dict[str, object] = one
    return found


def test_a_request_is_followed_and_cancelled(z: Zswap, site: Site) -> None:
    """One that would take for ever ends when it is cancelled, and tells how far it came."""
    name = site.feed()["engine"]
    status, text, _ = site.ask("POST", f"/reclaim?engine={name}", {"cgroup": "/web", "text": "30K source=zswap"})
    assert status == 201
    number = json.loads(text)["number"]
    while (done := request_of(site, number))["ended"] is None:
        pass
    assert (done["outcome"], done["done"]) == ("done", z.cgroup("/web").stats()["zswpwb_proactive_b"])

    begun, go_on = threading.Event(), threading.Event()

    def hold(event: TraceEvent) -> None:
        begun.set()
        go_on.wait()

    z.trace = hold
    _, text, _ = site.ask("POST", f"/reclaim?engine={name}", {"cgroup": "/jobs", "text": "1G source=zswap"})
    number = json.loads(text)["number"]
    begun.wait()
    assert request_of(site, number)["ended"] is None
    assert site.ask("DELETE", f"/request?engine={name}&number={number}")[0] == 204
    go_on.set()
    while (done := request_of(site, number))["ended"] is None:
        pass
    assert done["outcome"] == "EINTR"


def test_closing_ends_it(z: Zswap, private: Path) -> None:
    """Also while a page waits for news."""
    server = z.serve(private / "s", web=True)
    assert server.url is not None
    site = Site(server.url)
    told = site.feed()
    asking = threading.Thread(target=_ask_quietly, args=(site, told["series"]["time"][-1] + 1e6))
    asking.start()
    server.close()
    asking.join()


def _ask_quietly(site: Site, since: float) -> None:
    with contextlib.suppress(OSError):
        site.ask("GET", f"/feed?since={since}")


def test_all_engines_of_the_user(engine: EngineFactory, private: Path) -> None:
    """`uzswap web`: they come and go."""
    one, two = engine(), engine()
    fill(two, two.cgroup("/two"), 10, 1000)

    async def look() -> tuple[list[str], list[dict[str, Any]]]:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        engines = Engines(None, lambda cgroup: [{"time": 1.0, "text": f"decided about {cgroup}"}])
        serving = asyncio.create_task(serve(0, "t", engines, ready.set_result))
        await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        assert not serving.done(), serving.exception()
        site = Site(f"http://127.0.0.1:{ready.result()}/?token=t")
        first = await asyncio.to_thread(site.feed)
        names: list[str] = first["engines"]
        feeds = [await asyncio.to_thread(lambda name=name: site.feed(engine=name)) for name in names]
        serving.cancel()
        await asyncio.wait([serving])
        return names, feeds

    with one.serve(private / "1"), two.serve(private / "2"):
        names, feeds = asyncio.run(look())
    assert len(names) >= 2
    told = [feed["cgroups"] for feed in feeds]
    assert any(row["cgroup"] == "/two" for rows in told for row in rows)
    assert feeds[0]["decisions"] == [{"time": 1.0, "text": "decided about /"}]


def test_the_command(z: Zswap, private: Path) -> None:
    """It prints the URL, and ends at Ctrl-C."""
    with z.serve(private / "s"), started("web") as process:
        assert process.stdout is not None
        site = Site(process.stdout.readline().strip())
        assert site.feed()["now"]["zswap"] == 1_100_000
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


# History and rectangles


def sample(value: float) -> dict[str, float]:
    return dict.fromkeys(FIELDS, value)


def test_history_is_bounded() -> None:
    history = History()
    for second in range(1, HOUR + 100):
        history.add(float(second), {"/": sample(second)})
    hour = history.since("/", 0.0)
    assert (hour["time"][0], hour["time"][-1], len(hour["time"])) == (100.0, HOUR + 99.0, HOUR)
    assert hour["zswap"] == hour["time"]
    assert history.since("/", HOUR + 98.0)["time"] == [HOUR + 99.0]
    day = history.since("/", 0.0, minutes=True)
    assert day["time"][:2] == [60.0, 120.0]
    assert day["zswap"][:2] == [30.5, 90.5]  # means of a minute
    assert len(day["time"]) == (HOUR + 99) // 60 < DAY
    assert history.since("/nobody", 0.0)["time"] == []


def test_history_of_many_cgroups_is_of_those_that_use_most() -> None:
    history = History()
    history.add(1.0, {"/": sample(0.0)} | {f"/{n}": sample(n) for n in range(1000)})
    assert history.since("/", 0.0)["time"] == [1.0]
    assert history.since("/999", 0.0)["time"] == [1.0]
    assert history.since("/1", 0.0)["time"] == []


def test_rectangles_fill_the_whole() -> None:
    whole = Rectangle(0, 0, 2, 1)
    for sizes in ([6.0, 6, 4, 3, 2, 2, 1], [1.0], [5.0] * 9, [1e12, 1.0, 1.0]):
        found = squarified(sizes, whole)
        areas = [(one.right - one.left) * (one.top - one.bottom) for one in found]
        assert sum(areas) == pytest.approx(2)
        assert areas == pytest.approx([size / sum(sizes) * 2 for size in sizes])
        for one in found:
            assert -1e-9 <= one.left <= one.right <= 2 + 1e-9
            assert -1e-9 <= one.bottom <= one.top <= 1 + 1e-9
    assert squarified([], whole) == []
    assert len(squarified([0.0, 0.0], whole)) == 2

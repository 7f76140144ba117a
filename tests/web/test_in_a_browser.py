"""The page in Debian's Chromium: what a person sees and does.  Screenshots are in build/web/."""

from __future__ import annotations

import errno

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from tests.support.states import fill
from tests.web.conftest import Browser

from uzswap import Zswap

pytestmark = pytest.mark.slow


def click(browser: Browser, cgroup: str) -> None:
    """Choose a cgroup in the table."""
    browser.run(
        "Array.from(document.querySelectorAll('#cgroups button')).find((one) => one.textContent === "
        f"'{cgroup}').click()"
    )
    browser.until(lambda: browser.text("chosen") == cgroup)
    browser.another_look()


def test_what_a_person_does(z: Zswap, browser: Browser) -> None:
    """One page, since a browser takes seconds to start."""
    a = z.cgroup("/jobs/a")
    # Data appears: numbers, curves, rectangles, ages, and all cgroups.
    assert browser.text("now-zswap") == "1.0 M"
    assert browser.plotted("history", "zswap")[-1] == 1_100_000
    assert sorted(browser.plotted("rectangles", "cgroup")) == ["/jobs/a", "/jobs/b", "/web"]
    assert sum(browser.plotted("by_age", "bytes")) == 1_100_000
    assert [cell.text for cell in browser.driver.find_elements(By.CSS_SELECTOR, "#cgroups tbody td:first-child")] == [
        "/", "/jobs", "/jobs/a", "/jobs/b", "/web",
    ]  # fmt: skip
    browser.picture("page-1280", 1280, 2200)

    # And moves.
    seconds = len(browser.plotted("history", "time"))
    fill(z, z.cgroup("/web"), 100, 3000, seed=7)
    browser.until(lambda: browser.text("now-zswap") == "1.3 M")
    browser.until(lambda: len(browser.plotted("history", "time")) > seconds)
    assert browser.plotted("history", "zswap")[-1] == 1_400_000

    # A reclaim from the button is seen in the counters and on the plot.
    click(browser, "/jobs/a")
    assert browser.plotted("history", "zswap")[-1] == 400_000
    size = browser.driver.find_element(By.NAME, "size")
    size.clear()
    size.send_keys("100K", Keys.ENTER)
    browser.until(lambda: "done" in browser.text("requests"))
    written = a.stats()["zswpwb_proactive_b"]
    assert 100 << 10 <= written < (100 << 10) + 1000
    browser.until(lambda: browser.plotted("history", "disk")[-1] == written)
    assert browser.plotted("history", "zswap")[-1] == 400_000 - written

    # One that cannot be is told.
    size.clear()
    size.send_keys("1G", Keys.ENTER)
    browser.until(lambda: errno.errorcode[errno.EAGAIN] in browser.text("requests"))

    # A limit is edited, and a wrong one refused.
    limit = browser.driver.find_element(By.NAME, "memory.max")
    assert limit.get_attribute("value") == "8M"
    limit.clear()
    limit.send_keys("16M", Keys.ENTER)
    browser.until(lambda: a.read("memory.max") == f"{16 << 20}\n")
    limit = browser.driver.find_element(By.NAME, "memory.high")
    limit.clear()
    limit.send_keys("lots", Keys.ENTER)
    browser.until(lambda: "EINVAL" in browser.text("said"))
    assert a.read("memory.high") == "max\n"

    # The slider tells what a request with that age would write: nothing is a day old.
    age = browser.driver.find_element(By.ID, "age")
    age.send_keys(Keys.END)
    browser.until(lambda: "older than 1 d: a request could write 0 B" in browser.text("older"))
    age.send_keys(Keys.HOME)
    browser.until(lambda: "older than 0 s" in browser.text("older"))

    # Readable on a telephone: nothing is wider than the page.
    browser.picture("page-400", 400, 3600)
    assert browser.run("return document.documentElement.scrollWidth") <= 400

    # The dark form, when the browser prefers it.
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    browser.until(lambda: browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)")
    browser.picture("page-dark", 1280, 2200)

    # A cgroup that goes away under one's eyes.
    click(browser, "/web")
    z.cgroup("/web").remove()
    browser.until(lambda: browser.text("chosen") == "/")

"""Debian's Chromium, to look at a page as a person does, and what it complains of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from selenium import webdriver

#: why a test without one is skipped
MISSING: Final = "a browser is needed: apt-get install chromium chromium-driver, or make test as root"

_WORDS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1280,2200",
)


def is_there() -> bool:
    """Whether there is a browser, and what drives it."""
    return all(shutil.which(one) for one in ("chromium", "chromedriver"))


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Start one, for as long as the block takes."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in _WORDS:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = shutil.which("chromium") or ""
    opened = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
    try:
        yield opened
    finally:
        opened.quit()


def complaints(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """Return what the page's console has of errors and warnings; the network's are not the page's."""
    said: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [line for line in said if line["level"] in ("SEVERE", "WARNING") and line["source"] != "network"]

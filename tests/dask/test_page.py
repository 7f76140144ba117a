"""The page on Dask's dashboard in Debian's Chromium: what a person sees.  A screenshot is in build/web/."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="pip install 'uzswap[dask]'")
pytest.importorskip("bokeh", reason="the dashboard needs bokeh: pip install 'uzswap[web]'")
pytest.importorskip("selenium", reason="pip install selenium")

from tests.dask.cluster import in_cluster
from tests.support.chromium import MISSING, is_there

#: where screenshots are kept
PICTURES = Path("build/web")


@pytest.mark.slow
@pytest.mark.skipif(not is_there(), reason=MISSING)
def test_what_a_person_sees() -> None:
    """Data appear for each worker, move, and nothing is wrong in the console."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    done = in_cluster(
        textwrap.dedent(
            """
            from selenium.webdriver.common.by import By
            from selenium.webdriver.support.ui import WebDriverWait
            from tests.support.chromium import chromium, complaints

            #: title of a figure -> its source's columns; nothing before the page is there
            SHOWN = '''
                if (!window.Bokeh || !Bokeh.documents.length) return {}
                const found = {}
                for (const model of Bokeh.documents[0].all_models)
                    if (model.type == "Figure" && model.renderers.length) {
                        const {data} = model.renderers[0].data_source
                        const columns = Object.keys(data).map((name) => [name, Array.from(data[name])])
                        found[model.title.text] = Object.fromEntries(columns)
                    }
                return found
            '''
            #: the areas of all figures, in CSS pixels
            AREAS = '''
                const areas = []
                const look = (node) => {
                    for (const one of node.querySelectorAll("*")) {
                        if (one.tagName == "CANVAS") {
                            const {width, height} = one.getBoundingClientRect()
                            areas.push(width * height)
                        }
                        if (one.shadowRoot) look(one.shadowRoot)
                    }
                }
                look(document)
                return areas
            '''

            with cluster(dashboard_address="127.0.0.1:0", **together) as local, Client(local) as client:
                one = Cluster(client)
                base = f"http://127.0.0.1:{local.scheduler.http_server.port}"
                kept = client.map(lambda i: np.arange(1 << 17) * i, range(40), pure=False)
                wait(kept)
                one.reclaim("10M")
                tiers = ("resident", "zswap", "disk")
                with chromium() as driver:
                    def until(what):
                        return WebDriverWait(driver, 60, poll_frequency=0.1).until(lambda _: what())

                    def last():
                        shown = driver.execute_script(SHOWN)
                        return {title: {tier: data[tier][-1] for tier in tiers} for title, data in shown.items()
                                if data["time"]}

                    def is_told():
                        told = {address: {tier: stat[tier] for tier in tiers}
                                for address, stat in one.stat().workers.items()}
                        return last() == told and told

                    driver.get(base + "/uzswap")
                    told = until(is_told)
                    assert len(told) == 2 and all(stat["resident"] and stat["zswap"] for stat in told.values()), told
                    assert driver.title == "Dask: uzswap"
                    until(lambda: sum(area > 10_000 for area in driver.execute_script(AREAS)) >= 2)
                    # It moves, and what was shown stays.
                    before = {title: len(data["time"]) for title, data in driver.execute_script(SHOWN).items()}
                    one.reclaim(sum(stat["zswap"] for stat in told.values()), source="zswap")
                    told = until(is_told)
                    assert all(stat["disk"] and not stat["zswap"] for stat in told.values()), told
                    until(lambda: all(len(data["time"]) > before[title]
                                      for title, data in driver.execute_script(SHOWN).items()))
                    for data in driver.execute_script(SHOWN).values():
                        assert data["time"] == sorted(set(data["time"])), "rows of another worker are among them"
                    # Workers come.
                    local.scale(3)
                    client.wait_for_workers(3)
                    until(lambda: len(last()) == 3)
                    driver.set_window_size(1280, 900)
                    until(is_told)
                    assert driver.save_screenshot(sys.argv[1])
                    assert not complaints(driver), complaints(driver)
                    # The bar of Dask's other pages leads here.
                    driver.get(base + "/status")
                    until(lambda: [a for a in driver.find_elements(By.TAG_NAME, "a") if
                                   (a.get_attribute("href") or "").endswith("/uzswap")])
            print("done")
            """
        ).strip(),
        str(PICTURES.absolute() / "dask.png"),
    )
    assert done.stdout.split()[-1] == "done"

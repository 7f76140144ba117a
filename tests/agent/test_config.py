"""The configuration: layers, units, and errors that say where and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from uzswap.agent.config import Config
from uzswap.agent.policies import POLICIES, twostage
from uzswap.agent.settings import help_of, read_value
from uzswap.errors import InvalidArgumentError

LAYERS = """
[agent]
watch = ["/jobs/*"]
swapout_day = "4G"
quiet_hours = "22:00-06:30"

[default]
policy = "twostage"
twostage.age_min = "5m"
twostage.floor = "64M"

[glob."/jobs/*"]
twostage.age_min = 60

[glob."/jobs/web-*"]
twostage.pressure = "0.1%"

[cgroup."/jobs/web-1"]
twostage.age_min = "1h"

[cgroup."/jobs/db"]
enabled = false

[glob."/idle/**"]
policy = "idle"
idle.keep = 0.5
"""


def test_a_later_layer_wins_setting_by_setting() -> None:
    config = Config.parse(LAYERS)
    settings = {path: config.of(path)[1] for path in ("/other", "/jobs/a", "/jobs/web-2", "/jobs/web-1")}
    assert [one.age_min for one in settings.values()] == [300.0, 60.0, 60.0, 3600.0]
    assert [one.pressure for one in settings.values()] == [0.5, 0.5, 0.1, 0.1]
    assert {one.floor for one in settings.values()} == {64 << 20}
    assert not config.of("/jobs/db")[0].enabled
    choice, idle = config.of("/idle/a/b")
    assert (choice.policy, idle.keep) == ("idle", 0.5)
    assert config.agent.swapout_day == 4 << 30


def test_quiet_hours_may_go_over_midnight() -> None:
    config = Config.parse(LAYERS)
    assert [config.is_quiet(minute) for minute in (0, 389, 390, 12 * 60, 22 * 60 - 1, 22 * 60)] == [
        True, True, False, False, False, True,
    ]  # fmt: skip
    day = Config.parse('[agent]\nquiet_hours = "08:00-18:00"\n')
    assert [day.is_quiet(hour * 60) for hour in (7, 8, 17, 18)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[agent]\n\nwach = ["/a"]\n', 3, "did you mean watch?"),
        ("[defaults]\n", 1, "did you mean default?"),
        ("[default]\npolicy = 'towstage'\n", 2, "did you mean twostage?"),
        ("[default]\ntwostage.age_mni = 3\n", 2, "did you mean age_min?"),
        ("[default.twostage]\nage_min = 'soon'\n", 2, "give seconds, or a number with ms, s, m, h or d"),
        ('[glob."/a/*"]\ntwostage.floor = "1X"\n', 2, "one of K M G T P E"),
        ('[glob."a"]\n', 1, "has to begin with a slash"),
        ('[cgroup."/a"]\nenabled = "perhaps"\n', 2, "neither true nor false"),
        ('[agent]\nquiet_hours = "10-11"\n', 2, "22:00-06:00"),
        ("[default]\ntwostage.pressure = -1\n", 2, "no number from 0 on"),
        ("[agent]\nrecord_rows = 1.5\n", 2, "no whole number"),
        ("[agent]\nwatch = [1]\n", 2, "no list of texts"),
        ("[default]\nsenpia.tick = 1\n", 2, "did you mean senpai?"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_the_remedy(text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Config.parse(text, "agent.toml")
    assert f"agent.toml, line {line}, " in (caught.value.strerror or "")
    assert words in (caught.value.strerror or "")


def test_what_is_no_toml_is_said_with_its_line() -> None:
    with pytest.raises(InvalidArgumentError, match="line 2"):
        Config.parse("[agent]\nwatch = \n")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        Config.read(str(tmp_path / "none.toml"))


def test_settings_for_everybody_come_last() -> None:
    config = Config.parse(LAYERS).with_default({"twostage.age_min": "7s", "agent.swapout_day": "1M"})
    assert config.of("/jobs/web-1")[1].age_min == 7.0
    assert config.agent.swapout_day == 1 << 20
    with pytest.raises(InvalidArgumentError, match="did you mean twostage"):
        config.with_default({"twostages.age_min": 1})


@pytest.mark.parametrize("name", POLICIES)
def test_every_default_is_what_its_own_unit_reads(name: str) -> None:
    for _, unit, default, text in help_of(POLICIES[name].Settings):
        assert read_value(unit, default) == default
        assert text


def test_nothing_configured_is_the_defaults() -> None:
    choice, settings = Config().of("/anything")
    assert choice.enabled
    assert settings == twostage.Settings()

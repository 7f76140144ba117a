"""memory.reclaim's grammar, row by row (SPEC 6.2), and group A as far as parsing goes."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uzswap.cgroup.reclaim import KEYS, SOURCES, ReclaimRequest, parse, request

EINVAL = rf"\[Errno {errno.EINVAL}\]"


def refuses(text: bytes | str) -> None:
    with pytest.raises(OSError, match=EINVAL):
        parse(text)


def accepts(text: bytes | str, nbytes: int, **keys: Any) -> None:
    assert parse(text) == ReclaimRequest(nbytes, **keys)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("0", 0), ("1", 1), ("4095", 4095),
        ("K", 0), ("m", 0), ("E", 0), ("K source=zswap", 0),
        ("0x0", 0), ("0xff", 255), ("0x0K", 0), ("00", 0), ("010", 8), ("0xFFk", 255 << 10),
        ("0x1E", 30), ("1E", 1 << 60), ("1e", 1 << 60),
        ("16E", 0), ("16384P", 0), ("18446744073709551617", 1), ("9" * 40, int("9" * 40) % 2**64),
        (" 0", 0), ("\t0\t", 0), ("0\n", 0), ("\v0\f\r\n", 0),
        ("0x", None), ("0KB", None), ("0 K", None), ("0.0", None), ("1,000", None), ("08", None), ("0b1", None),
        ("-1", None), ("-0", None), ("+1", None), ("abc", None), ("max", None),
        ("", None), (" ", None), ("\n", None),
    ],
)  # fmt: skip
def test_size(text: str, nbytes: int | None) -> None:
    if nbytes is None:
        refuses(text)
    else:
        assert parse(text).nbytes == nbytes


@pytest.mark.parametrize(
    "text", ["0swappiness=60", "0Kswappiness=60", "0\tswappiness=60", "0  swappiness=60", "0 swappiness=60   "]
)
def test_no_blank_is_needed_after_the_size(text: str) -> None:
    accepts(text, 0, swappiness=60)


@pytest.mark.parametrize(
    "text",
    ["0 swappiness=60\tswappiness=70", "0 swappiness=60\nswappiness=70", "swappiness=60 0", "0 swappiness=60\t x"],
)
def test_only_space_separates_and_the_size_comes_first(text: str) -> None:
    refuses(text)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("0", 0), ("200", 200), ("max", "max"), ("0x3c", 60), ("0310", 200), ("-", 0), ("-0", 0),
        ("18446744073709551676", 60),  # wraps to 60: lib/parser.c reads it without looking for overflow
        ("201", None), ("-1", None), ("", None), ("MAX", None), ("0311", None), ("60x", None), ("+60", None),
        ("99999999999", None), (" = ", None), ("--1", None), ("08", None), ("0x", None), ("maxx", None),
        ("0" * 24, None),  # longer than lib/parser.c's buffer
    ],
)  # fmt: skip
def test_swappiness(value: str, read: int | str | None) -> None:
    if read is None:
        refuses(f"0 swappiness={value}")
    else:
        accepts(f"0 swappiness={value}", 0, swappiness=read)


def test_spaces_around_equals() -> None:
    refuses("0 swappiness = 60")
    refuses("0 swappiness= 60")


def test_the_last_swappiness_wins_but_each_must_be_valid() -> None:
    accepts("0 swappiness=60 swappiness=max", 0, swappiness="max")
    accepts("0 swappiness=max swappiness=70", 0, swappiness=70)
    refuses("0 swappiness=300 swappiness=60")


@pytest.mark.parametrize("value", ["", "x" * 16, "zswapzswapzswapz", "anon", "file", "ZSWAP", "zswap1", "None"])
def test_source_is_one_exact_word(value: str) -> None:
    refuses(f"1 source={value}")


def test_source() -> None:
    accepts("1 source=zswap", 1, source="zswap")
    accepts("1 source=zswap source=zswap", 1, source="zswap")
    accepts("10Msource=zswap", 10 << 20, source="zswap")


@pytest.mark.parametrize("swappiness", ["0", "60", "max", "-"])
def test_source_and_swappiness_exclude_each_other(swappiness: str) -> None:
    refuses(f"1 source=zswap swappiness={swappiness}")
    refuses(f"1 swappiness={swappiness} source=zswap")


def test_exclusion_is_tested_after_all_keys_were_parsed() -> None:
    with pytest.raises(OSError, match="'nonsense'"):
        parse("1 swappiness=60 source=zswap nonsense")


def test_bytes_after_a_nul_are_ignored() -> None:
    accepts(b"1 source=zswap\0 nonsense", 1, source="zswap")
    refuses(b"\x001")


def test_bytes_outside_ascii_are_nothing_special() -> None:
    refuses(b"1\xa0")
    refuses(b"\x851")
    refuses("１")  # a digit for int(), not for the kernel


@pytest.mark.parametrize(("value", "read"), [("0", 0), ("30", 30), ("0x10", 16), ("010", 8), ("2147483647", 2**31 - 1)])
def test_min_age(value: str, read: int) -> None:
    accepts(f"1 source=zswap min_age={value}", 1, source="zswap", min_age=read)
    accepts(f"1 min_age={value} source=zswap", 1, source="zswap", min_age=read)


@pytest.mark.parametrize("value", ["", "-", "-1", "+1", "1s", "0x", "08", "1.5", "2147483648", "max"])
def test_min_age_is_a_number_of_seconds(value: str) -> None:
    refuses(f"1 source=zswap min_age={value}")


def test_min_age_only_with_a_source() -> None:
    refuses("1 min_age=30")
    refuses("1 min_age=30 swappiness=60")


# Group A, the rows that end in the parser


def test_A2_blank_line() -> None:
    refuses("\n")


def test_A7_negative_size() -> None:
    refuses("-1 source=zswap")


def test_A8_source_with_swappiness() -> None:
    refuses("1 source=zswap swappiness=10")
    refuses("1 swappiness=10 source=zswap")


def test_A9_empty_source() -> None:
    refuses("1 source=")


def test_A11_source_of_16_characters() -> None:
    refuses("1 source=zswapzswapzswapz")


def test_A13_tab_does_not_separate() -> None:
    refuses("1 source=zswap\tx")


def test_A14_key_before_size() -> None:
    refuses("source=zswap 1")


def test_A16_swappiness_out_of_range() -> None:
    refuses("0 swappiness=201")


def test_A19_octal() -> None:
    refuses("08")
    accepts("010", 8)


# The form with arguments


def test_request_obeys_the_same_rules() -> None:
    assert request("10M", source="zswap", min_age=5) == parse("10M source=zswap min_age=5")
    assert request(4096, swappiness="max") == parse("4096 swappiness=max")
    assert request("1", swappiness=60) == parse("1 swappiness=60")


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        (-1, {}),
        ("", {}),
        ("K", {}),
        ("1 source=zswap", {}),
        (1 << 63, {}),
        (1, {"source": "disk"}),
        (1, {"source": "zswap swappiness=60"}),
        (1, {"source": "zswap", "swappiness": 60}),
        (1, {"swappiness": -1}),
        (1, {"swappiness": True}),
        (1, {"min_age": 5}),
        (1, {"source": "zswap", "min_age": -5}),
        (1, {"source": "zswap", "min_age": 0.5}),
    ],
)
def test_request_refuses(size: int | str, keys: dict[str, Any]) -> None:
    with pytest.raises(OSError, match=EINVAL):
        request(size, **keys)


@given(st.binary(max_size=64) | st.text("0189xXKkMeE =\t\nswappinesource=zswapmaxmin_age-", max_size=40))
def test_anything_is_accepted_or_einval(text: bytes | str) -> None:
    try:
        read = parse(text)
    except OSError:
        refuses(text)
    else:
        assert 0 <= read.nbytes < 2**64
        assert read.source in SOURCES


def test_every_key_belongs_to_a_source() -> None:
    assert KEYS.keys() == frozenset({"source"}).union(*SOURCES.values())

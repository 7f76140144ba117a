"""The kernel's number parsers against independent models, and the sizes of the Python API."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uzswap.errors import InvalidArgumentError
from uzswap.units import (
    NO_LIMIT,
    PAGE_SIZE,
    format_size,
    kstrtobool,
    kstrtoint,
    kstrtouint,
    memparse,
    page_counter_memparse,
    parse_size,
)

#: what the parsers look at, and a little of what they must not take
texts = st.text("0123456789abcdefxXkKmMgGtTpPeE+- \t\n.", max_size=24)


def model_integer(text: str) -> tuple[int, str]:
    """Base 0 by regular expression; the code under test goes digit by digit."""
    if match := re.match(r"0[xX]([0-9a-fA-F]+)", text):
        return int(match[1], 16), text[match.end() :]
    if match := re.match(r"0[0-7]*", text):
        return int(match[0], 8), text[match.end() :]
    match = re.match(r"[0-9]*", text)
    assert match
    return int(match[0] or "0"), text[match.end() :]


def model_memparse(text: str) -> tuple[int, str]:
    value, rest = model_integer(text)
    if rest and rest[0] in "kKmMgGtTpPeE":
        value *= 1024 ** {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}[rest[0].lower()]
        rest = rest[1:]
    return value % 2**64, rest


def refusal(function: Callable[[str], Any], text: str) -> int | None:
    with pytest.raises(OSError, match=re.escape(repr(text))) as caught:
        function(text)
    return caught.value.errno


@given(texts)
def test_memparse_agrees_with_the_model(text: str) -> None:
    assert memparse(text) == model_memparse(text)


@given(st.integers(0, 2**80), st.sampled_from(["", *"KMGTPEkmgtpe"]), st.sampled_from(["{}", "{:#x}", "0{:o}"]))
def test_memparse_of_real_numbers(number: int, suffix: str, form: str) -> None:
    text = form.format(number) + suffix
    expected = (number << 10 * " kmgtpe".index(suffix.lower() or " ")) % 2**64
    if form == "{:#x}" and suffix in "eE" and suffix:
        expected = (number << 4 | 0xE) % 2**64  # E is a hex digit
    assert memparse(text) == (expected, "")


@given(texts)
def test_limits_agree_with_the_model(text: str) -> None:
    stripped = text.strip(" \t\n\v\f\r")
    value, rest = model_memparse(stripped)
    if stripped == "max":
        assert page_counter_memparse(text) == NO_LIMIT
    elif rest:
        assert refusal(page_counter_memparse, stripped) == errno.EINVAL
    else:
        assert page_counter_memparse(text) == min(value // 4096 * 4096, NO_LIMIT)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max", NO_LIMIT), (" max\n", NO_LIMIT), ("", 0), ("\n", 0), ("K", 0), ("0", 0), ("4095", 0), ("4096", 4096),
        ("4097", 4096), ("64M\n", 64 << 20), ("4E", NO_LIMIT), ("0x7fffffffffffffff", NO_LIMIT), ("16E", 0),
    ],
)  # fmt: skip
def test_limit(text: str, limit: int) -> None:
    assert page_counter_memparse(text) == limit


@pytest.mark.parametrize("text", ["-1", "1 K", "MAX", "max 1", "1KB", "08", "1.5G"])
def test_no_limit_at_all(text: str) -> None:
    assert refusal(page_counter_memparse, text) == errno.EINVAL


@given(texts)
def test_kstrto_agree_with_the_model(text: str) -> None:
    sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    value, rest = model_integer(digits)
    is_number = digits[:1].isdigit() and rest in ("", "\n")

    for function, low, high in ((kstrtoint, -(2**31), 2**31 - 1), (kstrtouint, 0, 2**32 - 1)):
        signed = -value if sign == "-" else value
        if value >= 2**64 and not (sign == "-" and function is kstrtouint):
            assert refusal(function, text) == errno.ERANGE
        elif not is_number or (sign == "-" and function is kstrtouint):
            assert refusal(function, text) == errno.EINVAL
        elif not low <= signed <= high:
            assert refusal(function, text) == errno.ERANGE
        else:
            assert function(text) == signed


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x1", 1), ("+1\n", 1), ("-0", 0), ("010", 8), ("-2147483648", -(2**31)), ("2147483647", 2**31 - 1)],
)
def test_kstrtoint(text: str, value: int) -> None:
    assert kstrtoint(text) == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", errno.EINVAL), ("\n", errno.EINVAL), ("x", errno.EINVAL), ("1 ", errno.EINVAL), ("1\n\n", errno.EINVAL),
        ("0x", errno.EINVAL), ("2147483648", errno.ERANGE), ("-2147483649", errno.ERANGE),
        ("99999999999999999999x", errno.ERANGE),  # overflow is found before the x
    ],
)  # fmt: skip
def test_kstrtoint_refuses(text: str, error: int) -> None:
    assert refusal(kstrtoint, text) == error


@pytest.mark.parametrize("text", ["y", "Y", "yes\n", "1", "on", "ON", "true", "1x", "enabled"])
def test_true(text: str) -> None:
    assert kstrtobool(text) is True


@pytest.mark.parametrize("text", ["n", "N", "no\n", "0", "off", "OFF", "false", "0x1", "disabled"])
def test_false(text: str) -> None:
    assert kstrtobool(text) is False


@pytest.mark.parametrize("text", ["", "\n", " y", "o", "2", "-1", "maybe"])
def test_neither_true_nor_false(text: str) -> None:
    assert refusal(kstrtobool, text) == errno.EINVAL


@pytest.mark.parametrize(
    ("size", "nbytes"), [(0, 0), (4097, 4097), ("512M", 512 << 20), (" 8g ", 8 << 30), ("0x10", 16), ("4E", NO_LIMIT)]
)
def test_parse_size(size: int | str, nbytes: int) -> None:
    assert parse_size(size) == nbytes


@pytest.mark.parametrize("size", ["", "K", "-1", -1, "1 G", "8GB", "1.5G", "16E", "max", 2**63, "2%", "１"])
def test_parse_size_refuses(size: int | str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_size(size)
    assert caught.value.errno == errno.EINVAL
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OSError)


def test_parse_size_of_another_type() -> None:
    wrong: Any = 1.5
    with pytest.raises(TypeError):
        parse_size(wrong)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1024**2 - 1, "1.0 MiB"),
        (10 << 20, "10.0 MiB"), (3 << 60, "3.0 EiB"), (-2048, "-2.0 KiB"),
    ],
)  # fmt: skip
def test_format_size(nbytes: int, text: str) -> None:
    assert format_size(nbytes) == text
    assert format_size(nbytes, raw=True) == str(nbytes)


@given(st.integers(0, NO_LIMIT))
def test_a_formatted_size_is_within_its_last_digit(nbytes: int) -> None:
    number, unit = format_size(nbytes).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)
    assert abs(float(number) * scale - nbytes) <= 0.0501 * scale
    assert 0 <= float(number) < 1024


def test_the_page_is_the_kernels() -> None:
    assert PAGE_SIZE == 4096

"""The objects that bench_objects works on: makers of the i-th value of each kind, all different, all compressible."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

#: Words of the usual length, drawn as in a text: few are frequent (a Zipf law).
_WORDS: Final = [f"{a}{b}{c}" for a in ("re", "in", "con", "so", "ma") for b in ("tu", "ni", "ra", "lo") for c in "xsd"]
_WEIGHTS: Final = [1 / rank for rank in range(1, len(_WORDS) + 1)]


def _text(turns: random.Random, length: int) -> str:
    words = turns.choices(_WORDS, _WEIGHTS, k=length // 4)
    return " ".join(words)[:length].ljust(length, ".")


def string(i: int) -> str:
    """100 characters of text."""
    return _text(random.Random(i), 100)


def small_dict(i: int) -> dict[str, Any]:
    """Some 1 KB of pickle: nested plain types."""
    turns = random.Random(i)
    return {
        "id": i,
        "name": _text(turns, 40),
        "tags": turns.sample(_WORDS, 8),
        "scores": [turns.random() for _ in range(40)],
        "parts": [{"n": turns.randrange(1000), "text": _text(turns, 50)} for _ in range(5)],
    }


def record(i: int) -> dict[str, Any]:
    """Some 350 bytes of pickle: what a web service keeps of a user."""
    turns = random.Random(i)
    name = turns.choice(_WORDS).title()
    return {
        "id": 10_000_000 + i,
        "user": {"first_name": name, "last_name": turns.choice(_WORDS).title(), "email": f"{name}{i}@example.org"},
        "created_at": f"2026-{turns.randrange(1, 13):02}-{turns.randrange(1, 29):02}T{turns.randrange(24):02}:00:00Z",
        "is_active": turns.random() < 0.9,
        "roles": turns.sample(["reader", "writer", "editor", "admin"], 2),
        "balance": round(turns.random() * 1000, 2),
        "visits": turns.randrange(10_000),
        "referrer": None,
    }


def some_bytes(i: int) -> bytes:
    """10 KB of text."""
    return _text(random.Random(i), 10_000).encode()


def array(i: int) -> Any:
    """1 MiB of float64: a random walk in steps of a hundredth."""
    return np.random.default_rng(i).integers(-5, 6, 1 << 17).cumsum() / 100


def frame(i: int) -> Any:
    """1 MiB in three columns of numbers and one of categories."""
    import pandas

    turns = np.random.default_rng(i)
    rows = 43_000
    return pandas.DataFrame(
        {
            "time": np.arange(i, i + rows).astype("datetime64[s]"),
            "count": turns.integers(0, 100, rows),
            "value": turns.integers(-5, 6, rows).cumsum() / 100,
            "kind": pandas.Categorical.from_codes(turns.integers(0, 4, rows), ["a", "b", "c", "d"]),
        }
    )


@dataclass(frozen=True)
class Kind:
    make: Callable[[int], Any]
    #: of a pickle, about
    nbytes: int

    def number(self, most: int) -> int:
        """How many values a run has: at most so many, and no more than 32 MiB."""
        return max(24, min(most, (32 << 20) // self.nbytes))


KINDS: Final[dict[str, Kind]] = {
    "strings of 100 B": Kind(string, 100),
    "JSON-like records": Kind(record, 350),
    "dicts of 1 KB": Kind(small_dict, 1000),
    "bytes of 10 KB": Kind(some_bytes, 10_000),
    "ndarrays of 1 MiB": Kind(array, 1 << 20),
    "DataFrames of 1 MiB": Kind(frame, 1 << 20),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one.equals(other)) if hasattr(other, "equals") else bool(one == other)

"""What hides in extension types is counted, and what is shared is counted once."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from tests.store.test_sharing import roundtrip
from tests.store.test_survey import Slot
from tests.support.child import run

from uzswap.store.buffers import Buffers
from uzswap.store.weigh import REFERENCED, estimate, examine, told

pa = pytest.importorskip("pyarrow", reason="pip install pyarrow")
pd = pytest.importorskip("pandas", reason="pip install pandas")

ROWS = 100_000


def near(nbytes: int, expected: int) -> bool:
    return expected <= nbytes <= 1.05 * expected + 5000


def arrays(columns: int) -> dict[str, Any]:
    return {f"column {number}": np.arange(ROWS) + number / 2 for number in range(columns)}


def test_arrow_counts_its_buffers_once() -> None:
    table = pa.table(arrays(5))
    assert near(estimate([table]), 5 * 8 * ROWS)
    assert near(estimate([pa.array(range(ROWS))]), 8 * ROWS)
    column = table.column(0)
    assert near(estimate([[table, table.slice(5), column, column.chunk(0), table.to_batches()]]), 5 * 8 * ROWS)
    # All of a buffer stays alive with a slice of it.
    part = column.chunk(0).slice(10, 10)
    assert near(estimate([part]), 8 * ROWS)
    words = [f"word {number % 5000}" * 10 for number in range(ROWS)]
    assert 4 * ROWS + 5000 * 80 < estimate([pa.array(words).dictionary_encode()]) < 4 * ROWS + 5000 * 100
    slot = Slot(pa.table({"a": list(range(ROWS))}))
    assert near(examine([slot.value]).nbytes, 8 * ROWS)


def test_a_data_frame_counts_its_arrays_once() -> None:
    slot = Slot(pd.DataFrame(arrays(5)))
    assert near(estimate([slot.value]), 5 * 8 * ROWS)
    for _ in range(3):
        assert near(examine([slot.value]).nbytes, 5 * 8 * ROWS)
    assert near(estimate([pd.Series(np.arange(ROWS))]), 8 * ROWS)
    texts = [f"some text {number}" for number in range(ROWS)]
    frame = pd.DataFrame({"a": pd.array(texts, dtype="string[pyarrow]")})
    assert near(estimate([frame]), sum(map(len, texts)) + 8 * ROWS)
    del frame
    slot = Slot(pd.Series([f"some text {number}" for number in range(ROWS)], dtype=object))
    assert near(examine([slot.value]).nbytes, sum(map(len, texts)) + ROWS * (sys.getsizeof("") + 8))


def needs(module: str, package: str | None = None) -> None:
    """Skip without a library.  It is not imported, because it would start threads."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install {package or module}")


def weighed(make: str) -> tuple[int, int, int]:
    """Estimate, examined weight, and what ``real`` says, of a value; in a child, as the libraries start threads."""
    finished = run(
        textwrap.dedent(f"""
        import pickle
        import numpy as np
        from uzswap.store.weigh import estimate, examine
        class Slot:
            pass
        slot = Slot()
        {make}
        print(estimate([slot.value]), examine([slot.value]).nbytes, real)
    """)
    )
    assert finished.returncode == 0, finished.stderr
    estimated, examined, real = map(int, finished.stdout.split())
    return estimated, examined, real


def test_a_polars_frame_counts_its_columns() -> None:
    needs("polars")
    for make in (
        "DataFrame({'a': np.arange(100_000.0), 'b': np.arange(100_000)})",
        "Series('a', np.arange(200_000.0))",
    ):
        estimated, examined, real = weighed(f"import polars; slot.value = polars.{make}; real = 1_600_000")
        assert estimated == examined
        assert near(estimated, real)


def test_a_forest_counts_its_trees() -> None:
    needs("sklearn", "scikit-learn")
    estimated, examined, real = weighed(
        "from sklearn.ensemble import RandomForestClassifier; x = np.random.default_rng(1).random((300, 5));"
        "slot.value = RandomForestClassifier(20).fit(x, x[:, 0] > 0.5);"
        "real = sum(len(pickle.dumps(tree.tree_)) for tree in slot.value.estimators_); del x"
    )
    assert real > 20_000
    assert real < estimated < 4 * real
    assert near(examined, estimated)


class Tensor:
    """As one that is written in Python: its sum is of what is seen anyway."""

    def __init__(self) -> None:
        self.data = np.zeros(ROWS)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


def test_what_is_seen_is_not_counted_again() -> None:
    assert near(estimate([Tensor()]), 8 * ROWS)
    file = io.BytesIO(bytes(ROWS))
    assert near(estimate([file]), ROWS)
    file.write(b"some")  # it may have been the bytes that it was made of
    assert near(estimate([file]), ROWS)
    memory = bytearray(ROWS)
    assert near(estimate([[memory, memoryview(memory), np.frombuffer(memory, dtype="u1")]]), ROWS)


def groups() -> dict[Any, Any]:
    frame = pd.DataFrame({"key": np.arange(ROWS) % 50, **arrays(5)})
    return dict(list(frame.groupby("key")))


def test_groups_of_a_frame_are_charged_once() -> None:
    buffers = Buffers()
    slots = [Slot(frame) for frame in groups().values()]
    charged = 0
    joined = []
    for slot in slots:
        blocks: list[tuple[int, int]] = []
        charged += estimate([slot.value], blocks)
        coming = buffers.join(blocks)
        charged += coming.more
        joined.append(coming.part)
        buffers.came(coming)
    # 6 columns, and an index for each group
    assert 7 * 8 * ROWS < charged < 9 * 8 * ROWS
    assert sum(estimate([slot.value]) for slot in slots) > 40 * 6 * 8 * ROWS
    assert buffers.nbytes >= 6 * 8 * ROWS
    gone = sum(map(buffers.leave, joined[1:]))
    assert buffers.nbytes >= 6 * 8 * ROWS - gone
    assert gone + buffers.leave(joined[0]) >= 6 * 8 * ROWS
    assert buffers.nbytes == 0


def test_one_array_in_two_values_is_charged_once() -> None:
    array = np.zeros(ROWS)
    buffers = Buffers()
    for more in (8 * ROWS, 0):
        blocks: list[tuple[int, int]] = []
        assert estimate([{"array": array}], blocks) < 1000
        coming = buffers.join(blocks)
        assert (coming.more, coming.part) == (more, tuple(blocks))
        assert len(blocks) == 1
    alone: list[tuple[int, int]] = []
    assert estimate([[np.zeros(ROWS)]], alone) > 8 * ROWS
    assert not alone
    assert estimate([[np.zeros(ROWS)]], alone, all_blocks=True) < 1000
    # What is charged as paged memory is not charged again.
    paged = Buffers(is_paged=lambda address: address == alone[0][0])
    coming = paged.join([*alone, *blocks])
    assert (coming.more, coming.part) == (8 * ROWS, tuple(blocks))


def test_groups_come_back_as_views_of_one_frame() -> None:
    slot = Slot(groups())
    expected = pickle.loads(pickle.dumps(slot.value))
    assert examine([slot.value]).obstacle == REFERENCED
    before = examine([slot.value], "refer").nbytes
    assert before < 9 * 8 * ROWS
    for _ in range(2):
        roundtrip(slot)
        assert all(slot.value[key].equals(expected[key]) for key in expected)
        assert abs(examine([slot.value], "refer").nbytes - before) < before / 10


def test_a_shared_index_does_not_pin_a_frame() -> None:
    index = pd.Index([f"row {number}" for number in range(20)])
    other = pd.Series(np.arange(20.0), index=index)
    slot = Slot(pd.DataFrame({"a": np.arange(20.0), "b": "x"}, index=index))
    assert examine([slot.value]).obstacle == REFERENCED
    expected = slot.value.copy(deep=True)
    for _ in range(2):
        roundtrip(slot)
        assert slot.value.equals(expected)
    assert slot.value["a"].equals(other)


def test_the_programs_own_measure_is_checked() -> None:
    assert told(len, "abc") == 3
    assert told(lambda _: np.int64(5), None) == 5
    for wrong, error in ((-1, ValueError), (1 << 63, ValueError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="the store's sizeof returned"):
            told(lambda _, wrong=wrong: wrong, [1])

    def fails(_: object) -> int:
        raise KeyError("x")

    with pytest.raises(KeyError) as raised:
        told(fails, [1])
    assert "sizeof" in raised.value.__notes__[0]

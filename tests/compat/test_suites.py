"""A part of other people's test suites, with and without paged arrays; ``make compat`` runs all of them."""

from __future__ import annotations

import importlib.util

import pytest

from tests.compat.compare import compare
from tests.support.soak import longer

pytestmark = pytest.mark.slow

CORE = longer("TestResize or TestCreation", "TestResize or TestMethods or TestCreation")
LINALG = "TestQR or TestSolve or TestEigh"

#: suite -> a module of it that allocates much and takes seconds
PARTS = {
    "numpy._core": ("--pyargs", "numpy._core.tests.test_multiarray", "-k", CORE),
    "numpy.ma": ("--pyargs", "numpy.ma.tests.test_old_ma"),
    "numpy.linalg": ("--pyargs", "numpy.linalg.tests.test_linalg", "-k", LINALG),
    "numpy.fft": ("--pyargs", "numpy.fft.tests.test_pocketfft"),
    "pandas": ("--pyargs", "pandas.tests.groupby.test_reductions", "-k", "sum or mean"),
    "sklearn": ("--pyargs", "sklearn.cluster.tests.test_k_means", "-k", "test_kmeans_results or test_kmeans_relocated"),
}


@pytest.mark.parametrize("suite", longer(["numpy._core"], list(PARTS)))
def test_the_same_tests_fail_with_paged_arrays(suite: str) -> None:
    if importlib.util.find_spec(suite.partition(".")[0]) is None:
        pytest.skip("the test suites of pandas and scikit-learn: make soak ALL=1")
    comparison = compare(suite, PARTS[suite], timeout=300)
    assert not comparison.different, str(comparison)
    assert comparison.paged.count("passed") > 10, comparison.paged.said[-2000:]
    assert comparison.paged.facts["faults"] > 0
    assert comparison.paged.facts["wrong"] == 0

"""A pytest of its own, on tests that a test has written."""

import os
from typing import Final

#: as a command line has them: our fixtures, warnings as errors, nothing of this project's settings or others' plugins
OPTIONS: Final = (
    *("-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:zarr"),
    *("-W", "error", "-c", os.devnull),
)

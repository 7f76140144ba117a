"""What can be set: ``uzswap.*`` of Dask's configuration, with these defaults.

Any of Dask's ways works: ``dask.config.set``, a YAML file, ``DASK_UZSWAP__POOL=0.3`` in the environment of the worker.
"""

from __future__ import annotations

from typing import Any, Final

import dask.config
from dask.utils import parse_bytes

__all__ = ["DEFAULTS", "setting", "share"]

DEFAULTS: Final[dict[str, Any]] = {
    # What values may occupy in memory, compressed ones included: a share of the worker's memory limit, or bytes.
    # None: distributed.worker.memory.target.
    "target": None,
    # How far above that a worker may get before whoever sets a value makes room itself; below, a thread does.
    "headroom": 0.1,
    # Most of it that the compressed pool may take: what is colder goes to the disk.  0: everything goes there at once.
    "pool": 0.25,
    # "lz4", "zstd", or with a level, "zstd:3".
    "compressor": "lz4",
    # Most compressed bytes on the disk, from 4 MiB.  None: distributed.worker.memory.max-spill, or else what is free.
    "disk": None,
    # Where the swap file is, which has no name and is gone with the process.  None: the worker's local directory.
    "directory": None,
    # Whether the dashboard of a scheduler that preloads uzswap.dask gets a page.
    "dashboard": True,
}

dask.config.update_defaults({"uzswap": DEFAULTS})


def setting(name: str, given: Any = None) -> Any:
    """Return what the caller gave, or what the configuration says."""
    return given if given is not None else dask.config.get(f"uzswap.{name}", DEFAULTS[name])


def share(name: str, value: Any, limit: int | None) -> int | None:
    """Return bytes: of text, of a number, or of a share of the memory limit, a float; None when that is not known.

    Raises
    ------
    ValueError
        It is neither.

    >>> share("pool", 0.25, 1 << 30) == 1 << 28, share("pool", "64 MiB", None), share("pool", 0.25, None)
    (True, 67108864, None)
    """
    if isinstance(value, float) and 0 < value <= 1:
        return None if limit is None else int(value * limit)
    nbytes = int(parse_bytes(value))
    if nbytes < 0:
        raise ValueError(f"uzswap.{name}: {value!r} is less than nothing: give bytes, or a share of the memory limit")
    return nbytes

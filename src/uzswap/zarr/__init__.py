"""zarr 3 on uzswap: the chunks of groups and arrays in a cgroup, the cold ones compressed or on the disk."""

try:
    import zarr.abc.store  # noqa: F401
except ImportError as error:
    raise ImportError("uzswap.zarr needs zarr 3: pip install 'uzswap[zarr]'") from error

from uzswap.zarr.store import Store

__all__ = ["Store"]

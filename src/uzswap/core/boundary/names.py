"""Names of what the boundary counts, takes and answers: see engine.pyi."""

from collections import namedtuple

from cython.cimports.uzswap.core.store.active import HAS_LRU, HAS_RESIDENT
from cython.cimports.uzswap.core.store.codec import ALG_LZ4, ALG_ZSTD, MAX_ENTRY_BYTES
from cython.cimports.uzswap.core.store.entries import IN_POOL, IS_SAME, IS_ZERO, NR_NODES, ON_DISK
from cython.cimports.uzswap.core.store.histogram import NR_BUCKETS, NR_STEPS, STEP_SHIFT
from cython.cimports.uzswap.core.store.recompress import RECOMPRESS_AGAIN
from cython.cimports.uzswap.core.store.state import WRITE_COLDEST, WRITE_IN_TURN, WRITE_NOTHING
from cython.cimports.uzswap.core.store.swap_out import (
    STORE_DONE,
    STORE_OVER_LIMIT,
    STORE_OVER_SWAP,
    STORE_POOL_FULL,
    STORE_REFUSE,
    STORE_SKIP_LIMIT,
    STORE_TRY_FILTER,
)
from cython.cimports.uzswap.core.store.walk import WALK_RETRY_FAILED, WALK_STOP_ON_EXIST

COUNTERS = (
    "resident",
    "zswap",
    "zswapped",
    "zswap_incomp",
    "swap",
    "disk",
    "uzswap.clean_copies",
    "swapcached",
    "uzswap.metadata_bytes",
    "zswpin",
    "zswpout",
    "zswpwb",
    "zswpwb_proactive_b",
    "pswpin",
    "pswpout",
    "swpin_zero",
    "swpout_zero",
    "uzswap.same_filled",
    "pgfault",
    "pgmajfault",
    "workingset_refault_anon",
)
GLOBALS = (
    *COUNTERS,
    "pool_limit_hit",
    "reject_reclaim_fail",
    "reject_alloc_fail",
    "reject_kmemcache_fail",
    "reject_compress_fail",
    "reject_compress_poor",
    "decompress_fail",
    "written_back_pages",
    "stored_pages",
    "stored_incompressible_pages",
    "uzswap.checksum_fail",
    "uzswap.io_error",
)
HISTOGRAMS = ("length", "load.zswap", "load.disk", "load.zero", "age")
LENGTH_BOUNDS = (*((step + 1) << STEP_SHIFT for step in range(NR_STEPS)), *(4096 << k for k in range(1, 5)))
NS_BOUNDS = tuple(map((256).__lshift__, range(NR_BUCKETS)))
MAX_NODES = NR_NODES
MAX_ENTRY = MAX_ENTRY_BYTES
REFUSED = 0
ZERO, SAME, ZSWAP, DISK = IS_ZERO, IS_SAME, IN_POOL, ON_DISK
ZSWAP_MAX, MEMORY_HIGH, MEMORY_MAX, SWAP_HIGH, SWAP_MAX, RESIDENT_MAX, MEMORY_MIN, MEMORY_LOW = range(8)
SKIP_LIMIT, REFUSE, TRY_FILTER = STORE_SKIP_LIMIT, STORE_REFUSE, STORE_TRY_FILTER
DONE, OVER_LIMIT, POOL_FULL, OVER_SWAP = STORE_DONE, STORE_OVER_LIMIT, STORE_POOL_FULL, STORE_OVER_SWAP
STOP_ON_EXIST, RETRY_FAILED = WALK_STOP_ON_EXIST, WALK_RETRY_FAILED
AGAIN = RECOMPRESS_AGAIN
LZ4, ZSTD = ALG_LZ4, ALG_ZSTD
LRU, RESIDENT = HAS_LRU, HAS_RESIDENT
IN_TURN, COLDEST, NOTHING = WRITE_IN_TURN, WRITE_COLDEST, WRITE_NOTHING

StoreResult = namedtuple("StoreResult", "next reason errno")
LoadResult = namedtuple("LoadResult", "failed errno disk_ns")
WalkResult = namedtuple("WalkResult", "scanned rotated entries nbytes exist nospace stopped exhausted")
RecompressResult = namedtuple(
    "RecompressResult", "scanned rotated nbytes entries bytes_before bytes_after refused gone exhausted position errno"
)
Recompressed = namedtuple("Recompressed", "entries bytes_before bytes_after refused")
FlushResult = namedtuple("FlushResult", "entries nbytes failed errno gone")
EntryInfo = namedtuple("EntryInfo", "state codec length size memcg node referenced location")
Places = namedtuple("Places", "zswap disk value unknown zswap_bytes disk_bytes")
PoolInfo = namedtuple("PoolInfo", "codec level entries current dictionary")
CodecInfo = namedtuple("CodecInfo", "codec level filter dictionary entries refs users given_bytes packed_bytes")
HistogramInfo = namedtuple("HistogramInfo", "sum counts")
DeviceInfo = namedtuple(
    "DeviceInfo",
    "segments free_segments live_bytes dead_bytes direct asynchronous encrypted cleaned_segments punched_bytes "
    "cached_bytes",
)

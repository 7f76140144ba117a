"""The boundary of the data plane: integers and buffers in, integers out.

Every method may be called from any thread.  Methods release the GIL while they work and take the engine lock
themselves.  Nothing here parses text, formats messages or decides policy; a failure is a negative errno or an
index, and the layer above turns it into an exception that names the cgroup.
"""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

Handles: TypeAlias = NDArray[np.uint64]

#: Names of the per-memcg counters, in the order of :meth:`Engine.counters`.  Bytes unless said otherwise.
#: Levels: resident zswap zswapped zswap_incomp swap disk (compressed bytes on the device) uzswap.clean_copies
#: (compressed bytes in the pool whose page is in memory too) swapcached (those pages).
#: Events, in pages of 4096 bytes (a larger entry counts as several): zswpin zswpout zswpwb pswpin pswpout swpin_zero
#: swpout_zero uzswap.same_filled pgfault pgmajfault workingset_refault_anon; in compressed bytes: zswpwb_proactive_b.
COUNTERS: Final[tuple[str, ...]]
#: Names of the engine-wide counters, in the order of :meth:`Engine.globals`: those of COUNTERS (of all entries, root's
#: own too), then the debugfs counters pool_limit_hit reject_reclaim_fail reject_alloc_fail reject_kmemcache_fail
#: reject_compress_fail reject_compress_poor decompress_fail written_back_pages stored_pages
#: stored_incompressible_pages, then uzswap.checksum_fail uzswap.io_error.
GLOBALS: Final[tuple[str, ...]]

#: Names of the histograms (:meth:`Engine.histograms`): compressed bytes of what entered the pool; ns that a load took,
#: by where the data was, each load of a call with its share; ns in the pool until writeback, 17 ms exact.
HISTOGRAMS: Final[tuple[str, ...]]
LENGTH_BOUNDS: Final[tuple[int, ...]]  # what is in a class of "length" is at most so many bytes
NS_BOUNDS: Final[tuple[int, ...]]  # of the others; the last class takes all that is more as well

MAX_NODES: Final[int]  # 8
MAX_ENTRY: Final[int]  # 65536, the largest uncompressed entry in bytes
REFUSED: Final[int]  # 0: in a handle array, "this page stays with the caller"

# Entry states (EntryInfo.state)
ZERO: Final[int]
SAME: Final[int]  # one repeated 8-byte word, held as a value
ZSWAP: Final[int]  # compressed, in the pool
DISK: Final[int]

# set_limit(which=)
ZSWAP_MAX: Final[int]  # in pages
MEMORY_HIGH: Final[int]  # bytes
MEMORY_MAX: Final[int]
SWAP_HIGH: Final[int]
SWAP_MAX: Final[int]
RESIDENT_MAX: Final[int]  # resident bytes alone, compressed ones not counted
MEMORY_MIN: Final[int]
MEMORY_LOW: Final[int]

# store(flags=)
TRY_FILTER: Final[int]  # `filter` only if a sample of the data gets smaller by it
# both about the first folio of the call only
SKIP_LIMIT: Final[int]  # do not test memory.zswap.max (room was just made)
REFUSE: Final[int]  # treat it as refused by memory.zswap.max

# StoreResult.reason
DONE: Final[int]
OVER_LIMIT: Final[int]  # folio `next` is over memory.zswap.max of its memcg or an ancestor; nothing was done for it
POOL_FULL: Final[int]  # a folio was refused because the pool is full, and handled; wake the shrink worker and go on
OVER_SWAP: Final[int]  # folio `next` was refused by memory.swap.max (its handles are REFUSED); count it and go on

# Writer.walk(flags=)
STOP_ON_EXIST: Final[int]  # v5: an entry that is being loaded ends the walk of its LRU (EEXIST)
RETRY_FAILED: Final[int]  # v5: an entry whose write failed is met again by the next walk

# recompress(flags=)
AGAIN: Final[int]  # also entries that were tried before in vain, with whatever codec

# active(which=): what a memcg has itself
LRU: Final[int]  # entries on an LRU
RESIDENT: Final[int]  # resident bytes

# set_fault_writeback(how=): which memcg of the subtree that is over a limit writes back for a fault on an array
IN_TURN: Final[int]
COLDEST: Final[int]  # the one with the entry that has waited longest
NOTHING: Final[int]

# Codecs (set_compressor)
LZ4: Final[int]
ZSTD: Final[int]

class StoreResult(NamedTuple):
    next: int  # the first page index that was not handled
    reason: int
    errno: int  # of the device, when a refused page could not be written either (its handle is REFUSED); else 0

class LoadResult(NamedTuple):
    failed: int  # index of the handle that could not be loaded, or -1; on failure nothing was consumed
    errno: int  # ESTALE freed or foreign handle, EBUSY being loaded elsewhere (or met twice), EIO device, EBADMSG
    #             checksum, EILSEQ does not decompress, EINVAL larger than `page`, ENOMEM
    disk_ns: int  # time spent waiting for the device

class WalkResult(NamedTuple):
    scanned: int  # entries met that were candidates (young ones with min_age are not counted)
    rotated: int  # entries whose referenced bit was cleared
    entries: int  # entries handed to the device
    nbytes: int  # their compressed bytes
    exist: int  # failures by reason: being loaded right now
    nospace: int  # the device is full
    stopped: bool  # STOP_ON_EXIST struck
    exhausted: bool  # no LRU of the walk has anything left for this request

class RecompressResult(NamedTuple):
    scanned: int  # candidates met: cold enough, and not compressed so already
    rotated: int  # of these, entries whose referenced bit was cleared
    nbytes: int  # compressed bytes of those that were taken, whatever became of them
    entries: int  # compressed again
    bytes_before: int  # their compressed bytes
    bytes_after: int
    refused: int  # as large a size class with the other codec: they stay as they are, and are not tried again
    gone: int  # loaded, freed or on their way to the device meanwhile
    exhausted: bool  # the LRU has nothing left for this request
    position: int  # for the next call of the request
    errno: int  # ENOMEM, or 0

class Recompressed(NamedTuple):  # since the engine was made
    entries: int
    bytes_before: int
    bytes_after: int
    refused: int

class FlushResult(NamedTuple):
    entries: int  # written since the writer was opened, safely on the device
    nbytes: int
    failed: int  # entries whose device write failed: back in the pool, at the tail of their LRU
    errno: int  # first device error, or 0
    gone: int  # entries loaded or freed while their write was in flight

class EntryInfo(NamedTuple):
    state: int
    codec: int  # pool slot, see Engine.pools()
    length: int  # compressed bytes (0 for ZERO and SAME; 4096 for a raw page)
    size: int  # uncompressed bytes
    memcg: int  # the online memcg that owns it now
    node: int
    referenced: bool
    location: int  # address in the pool (ZSWAP), byte offset on the device (DISK), the word (SAME)

class Places(NamedTuple):
    zswap: int  # entries in the pool
    disk: int
    value: int  # held as a value: zero, or one repeated word
    unknown: int  # handles that are nobody's
    zswap_bytes: int  # compressed
    disk_bytes: int

class PoolInfo(NamedTuple):
    codec: int
    level: int
    entries: int
    current: bool
    dictionary: bool  # small values, each compressed with one of the dictionaries of their store

class CodecInfo(NamedTuple):
    codec: int
    level: int
    filter: int
    dictionary: bool
    entries: int  # in the pool
    refs: int  # in the pool or on the device
    users: int  # holders and calls under way
    given_bytes: int  # of all that was ever stored with it, since the slot was taken
    packed_bytes: int  # what they became

class HistogramInfo(NamedTuple):
    sum: int
    counts: list[int]  # by class; for "length" those beyond LENGTH_BOUNDS are 0

class DeviceInfo(NamedTuple):
    segments: int
    free_segments: int
    live_bytes: int  # records that are still wanted
    dead_bytes: int  # overwritten by nobody yet: what cleaning would win
    direct: bool
    asynchronous: bool  # a writer has found that it can be; False before the first one
    encrypted: bool
    cleaned_segments: int
    punched_bytes: int
    cached_bytes: int  # of live_bytes, without their headers: of values that are in memory, too

# A dictionary's content from samples that follow one another; empty when they are too few or too much alike.
def train_dictionary(samples: Buffer, sizes: Handles, capacity: int) -> bytes: ...

# What a child's setting is worth, in bytes (mm/page_counter.c); siblings_protected: the sum over the parent's children,
# this one included, of min(usage, setting).
def share_of_protection(
    usage: int, parent_usage: int, setting: int, parent_effective: int, siblings_protected: int
) -> int: ...

class Engine:
    # paranoid: checksums of what is given are kept and compared, from store to load
    def __init__(self, nodes: int = 1, paranoid: bool = False) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def is_here(self) -> bool: ...  # whether this process made it, or it came along with a fork that Python made

    # time and order
    def now(self) -> int: ...  # ns, CLOCK_MONOTONIC plus what advance() added
    def advance(self, ns: int) -> None: ...  # lets tests grow entries old without waiting
    def stamp(self) -> int: ...  # the last order stamp given out

    # memcgs; 0 is the root
    def memcg_new(self, parent: int) -> int: ...  # -ENOMEM when there are too many
    def memcg_remove(self, memcg: int) -> None: ...  # entries go to the parent, at the head of its LRUs
    def set_limit(self, memcg: int, which: int, value: int) -> None: ...
    # (memory.min, memory.low) that a memcg is granted when the target is reclaimed, in bytes; ValueError: not below it
    def effective_protection(self, memcg: int, target: int) -> tuple[int, int]: ...
    def set_writeback(self, memcg: int, allowed: bool) -> None: ...
    def counters(self, memcg: int) -> list[int]: ...  # one consistent snapshot, subtree included
    def globals(self) -> list[int]: ...
    def histograms(self) -> dict[str, HistogramInfo]: ...  # since the engine was made
    def lru_len(self, memcg: int, node: int) -> int: ...
    def nr_disk_swapins(self, memcg: int, node: int) -> int: ...
    def take_disk_swapins(self, memcg: int, node: int, most: int) -> int: ...  # consumes and returns min(have, most)
    def active(self, memcg: int, which: int) -> list[int]:
        """The online memcgs of a subtree that have something to give, in pre-order, children in creation order.

        It costs what they are, not what the tree is: subtrees without resident and compressed bytes are not visited.

        Parameters
        ----------
        which
            LRU, RESIDENT, or both: either will do.  With LRU alone, what writeback=0 of the memcg or one between it and
            the root of the subtree forbids is left out, unless zswap is disabled (SPEC 2.4).
        """
    def local_stored(self, memcg: int) -> int: ...  # entries of this memcg alone, in the pool
    def writeback_allowed(self, memcg: int) -> bool: ...  # SPEC 2.4 (true for everybody while disabled); device or not
    def watermark(self, memcg: int, swap: bool) -> tuple[int, int]: ...  # (peak ever, peak since reset_watermark)
    def reset_watermark(self, memcg: int, swap: bool) -> int: ...  # returns current
    def count(self, memcg: int, counter: int, value: int) -> None: ...  # add to an event counter, ancestors too

    # resident memory of the front-ends
    def charge(self, memcg: int, nbytes: int, force: bool = False) -> tuple[int, int]: ...
    # (memcg over a hard limit, nothing charged; or -1, memcg over memory.high, or -1); forced: never over a hard limit
    def uncharge(self, memcg: int, nbytes: int) -> None: ...
    def drop_clean(self, memcg: int, nbytes: int) -> int: ...  # clean copies of the subtree,
    #   oldest first, but for what memory.min and memory.low protect; bytes freed
    # parameters
    def set_enabled(self, enabled: bool) -> None: ...
    def set_fault_writeback(self, how: int) -> None: ...  # IN_TURN, COLDEST or NOTHING
    def set_same_filled(self, as_value: bool) -> None: ...  # False: stored as ordinary entries (all-zero stays a value)
    def set_compressor(self, codec: int, level: int) -> int: ...  # 0; -EBUSY when too many old pools still drain
    # A slot to store with, the caller's to hold until codec_put(); the same codec is the same slot.
    # -EINVAL there is no such codec, -EBUSY all slots have entries or holders.
    def codec_get(self, codec: int, level: int, filter: int = 0) -> int: ...
    # A slot of zstd with a dictionary; also -EINVAL: the content is none, -ENOMEM.  What was stored with it keeps it.
    def dictionary_new(self, content: bytes, level: int) -> int: ...
    def codec_info(self, slot: int) -> CodecInfo | None: ...  # None: vacant
    def codec_put(self, slot: int) -> None: ...
    def set_pool_limit(self, max_pages: int, accept_pages: int) -> None: ...
    def pools(self) -> list[PoolInfo]: ...  # current first; a pool goes when its last entry leaves
    def pool_pages(self) -> int: ...  # 4096-byte pages that the pool really occupies
    def metadata_bytes(self) -> int: ...
    def read_around_bytes(self) -> int:
        """Memory for what is around values that were read from the device; 0 before the first is."""

    def reached_full(self) -> bool: ...

    # device
    # 0 or -errno.  The caller keeps owning fd, and may close it: what changes the device is done by threads that have a
    # table of their own.  The nonce tells what this engine writes from what any other wrote; 0 asks for one to be made.
    # A forked child that writes makes a file of its own in the directory.
    # Before a device is attached: what goes to it is encrypted.  0, -EOPNOTSUPP without libcrypto, -EPERM when the keys
    # cannot be locked in memory, -ENOMEM.
    def make_keys(self) -> int: ...
    def attach_device(
        self,
        fd: int,
        nbytes: int,
        direct: bool,
        nonce: int = 0,
        directory: bytes = b"/var/tmp",
        front: int = 0,  # bytes at the beginning that are left alone
    ) -> int: ...
    def lent(self) -> bool: ...  # whether a forked child, or one of its own, may read what is on the device
    def write_block(self, offset: int, content: bytes) -> int: ...  # content, and zeros up to 4096 bytes; 0 or -errno
    def truncate_device(self, nbytes: int) -> int: ...  # 0 or -errno
    def wipe_device(self) -> int: ...  # zero what was written to of a block device, for its last moment; 0 or -errno
    def settle_device(self) -> None: ...  # wait until blocks of what was freed are given back
    def device(self) -> DeviceInfo | None: ...

    # entries
    def store(
        self,
        data: Buffer,
        page: int,
        memcg: int,
        node: int,
        handles: Handles,
        start: int = 0,
        folio: int = 1,
        flags: int = 0,
        codec: int = -1,  # a slot; -1, and when nobody holds it any more: what the engine uses
        filter: int = 0,  # item size of a byte shuffle before compression; 0 and with dictionaries: none
        small: int = -1,  # a slot for entries of at most small_bytes, instead of `codec` and `filter`
        small_bytes: int = 0,
    ) -> StoreResult: ...
    def load(self, handles: Handles, out: Buffer, page: int, consume: bool = True) -> LoadResult: ...
    def load_bytes(
        self, handles: Handles, page: int, nbytes: int, consume: bool = True
    ) -> tuple[bytes | None, LoadResult]: ...  # as load(), into a new bytes object of nbytes; None on failure
    def free(
        self, handles: Handles
    ) -> tuple[int, int]: ...  # (index, errno) of the first bad handle, nothing freed; or (-1, 0)
    def info(self, handle: int) -> EntryInfo | None: ...  # None: freed or foreign
    def places(self, handles: Handles) -> Places:
        """Where many entries are, in one call; they may move while it looks, 1024 at a time."""
    def recompress(
        self,
        memcg: int,
        node: int,
        codec: int,
        level: int,
        nr_to_scan: int,
        budget: int,  # stop as soon as this many compressed bytes were taken
        since: int,  # stamp() when the request began: what was rotated since had its second chance
        position: int = 0,  # that of the last call's result; 0 at the start of a request
        max_born: int = ...,  # as in Writer.walk()
        flags: int = 0,
    ) -> RecompressResult:
        """Compress the coldest of one LRU again, where it lies; places on the LRU and ages stay.

        What was shuffled stays shuffled; what has a dictionary keeps it.
        """
    def recompressed(self) -> Recompressed: ...
    def hold(self, handle: int) -> int: ...  # as a fault in progress does: loads EBUSY, writeback EEXIST; 0 or -errno
    def release(self, handle: int) -> None: ...
    def forked(self) -> None: ...  # in a child: frees what was stored for threads that are not there
    def check(self) -> list[str]: ...  # every invariant that is broken, in words; empty when all hold

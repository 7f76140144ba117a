"""What a store's small values have in common: when a dictionary is made of it, and when a better one.

A pickle of a few hundred bytes hardly compresses alone.  Values of one kind share their keys, types and words, though;
compressed with a dictionary of these each is 3 to 3.5 times smaller than with lz4 alone, and is still loaded by itself,
in a microsecond (docs/benchmarks.md, where "several values in one chunk" stands beside it).

The data plane knows dictionaries as codecs: an entry keeps the one that it was stored with, wherever it is, and one
that nothing refers to goes.  Here is the policy alone, asked once a batch:

* *gathering*: values on their way out are sampled, a bounded and fair share of all of them; when they are enough, a
  thread of ours makes a dictionary of them;
* *watching*: the data plane counts what values become.  When they get notably larger than they were while the
  dictionary was new, it is time to gather again;
* *resting*: where a dictionary saves next to nothing, there is none until many more values have come.

Nothing here is needed for correctness: a batch that is given a codec which has gone meanwhile is stored with the
engine's.  May be called from any thread.
"""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np

from uzswap.core.boundary.engine import train_dictionary
from uzswap.engine.lifetime import ForkedLifetime
from uzswap.engine.worker import Worker
from uzswap.locks import Order
from uzswap.signals import hold_back_signals

if TYPE_CHECKING:
    from uzswap.core.boundary.engine import Engine
    from uzswap.engine.host import FrontEndHost

__all__ = ["NO_CODEC", "SMALL", "Dictionaries", "put_codec"]

#: "What the engine uses", where a codec is asked for.
NO_CODEC: Final = -1

#: Bytes of the largest value that is compressed with a dictionary.  Larger ones have enough in common with themselves:
#: at 2 KiB of JSON-like records zstd alone is within a tenth of it (2026-11).
SMALL: Final = 2048

#: Level of zstd: 3 saves 2 to 8 % more than 1 for 0.1 to 0.4 us a value; 5 to 7 take 2 to 5 times as long for nothing
#: (pickles of 160 to 420 bytes, 2026-11).
LEVEL: Final = 3

#: Bytes of a dictionary.  16 KiB saves 3 % less, 110 KiB 4 % more and takes 4 times the memory (same measurement).
CAPACITY: Final = 32768
#: A dictionary is not made of less than so many times its own bytes: it would be the samples.
SAMPLES_TO_DICTIONARY: Final = 3

#: Values seen before a dictionary is made.  It takes some 200 KiB, and saves about 100 bytes a value.
ENOUGH_VALUES: Final = 2048
#: Samples kept of them: 500 do nearly as well, 5000 no better.
MOST_SAMPLES: Final = 1000

#: Bytes given to a dictionary between two looks at what it saves: a thousand values or more.
WINDOW: Final = 256 << 10
#: Values that get so much larger than those in the first window ask for a new dictionary.
DECAY: Final = 1.25
#: A dictionary that makes values less than so many times smaller is dropped.
WORTHWHILE: Final = 1.2
#: Values to wait after one that was not worthwhile, or no better than the one before; doubled each time.
REST: Final = 65536
_MOST_REST: Final = REST << 10


class Dictionaries:
    """The dictionaries of one store, one after the other.

    Parameters
    ----------
    host
        The engine.
    level
        Of zstd.

    Attributes
    ----------
    sampling : bool
        Whether :meth:`sample` wants to see values.
    trained : int
        Dictionaries made so far.
    """

    def __init__(self, host: FrontEndHost, level: int = LEVEL) -> None:
        self._host = host
        self._level = level
        self._slot = NO_CODEC
        self._random = random.Random(0)
        self._samples: list[bytes] = []
        self._seen = 0
        self._rest, self._rests = 0, REST
        #: (bytes given, bytes packed) where the current window began
        self._window = (0, 0)
        #: times smaller, in the first window of the dictionary in use; 0 before its end
        self._first_ratio = 0.0
        #: of the one before, when it was given up
        self._last_ratio = 0.0
        self._worker = Worker("uzswap-dictionary", self._make, Order.STORE_WORKER)
        self._closed = False
        self.sampling = True
        self.trained = 0

    # For every batch that is packed

    def choose(self, nbytes: int) -> int:
        """The codec for a value of so many bytes, for the data plane: a slot, or :data:`NO_CODEC`."""
        return self._slot if nbytes <= SMALL else NO_CODEC

    @property
    def slot(self) -> int:
        """The codec for values of at most :data:`SMALL` bytes, or :data:`NO_CODEC`."""
        return self._slot

    def sample(self, value: bytes | bytearray | memoryview) -> None:
        """Show a value that is being packed.  While :attr:`sampling`, all of them: each has the same chance to stay."""
        if not self.sampling or not 0 < len(value) <= SMALL:
            return
        if self._rest > 0:
            self._rest -= 1
            self._seen = 0
            return
        # Other threads show values meanwhile, and one may take the samples away: what follows is of one look at both.
        samples = self._samples
        self._seen = seen = self._seen + 1
        # Vitter's algorithm R.
        if len(samples) < MOST_SAMPLES:
            samples.append(bytes(value))
        elif (place := self._random.randrange(seen)) < MOST_SAMPLES:
            samples[place] = bytes(value)

    def after_batch(self) -> None:
        """Look, once a batch, whether there is something to do; it is done in the background."""
        if self._closed:
            return
        if self.sampling:
            if self._seen >= ENOUGH_VALUES:
                self._worker.wake()
        elif self._slot != NO_CODEC:
            self._watch()

    def _watch(self) -> None:
        info = self._host.core.codec_info(self._slot)
        if info is None:  # another thread has just replaced it
            return
        given, packed = self._window  # once: other threads begin windows, too
        given, packed = info.given_bytes - given, info.packed_bytes - packed
        if given < WINDOW:
            return
        self._window = (info.given_bytes, info.packed_bytes)
        ratio = given / packed
        if not self._first_ratio:
            self._first_ratio = ratio
            if ratio < WORTHWHILE:
                self._give_up()
            elif self._last_ratio and ratio < self._last_ratio * DECAY:
                # The values are what has changed, not what they have in common.
                self._wait()
            else:
                self._rests = REST
        elif ratio * DECAY < self._first_ratio:
            self._last_ratio = ratio
            self.sampling = True

    def _wait(self) -> None:
        self._rest = self._rests
        self._rests = min(self._rests * 2, _MOST_REST)

    def _give_up(self) -> None:
        self._wait()
        self._use(NO_CODEC)
        self.sampling = True

    # In the background

    def _make(self) -> None:
        """Make a dictionary of the samples and have it used."""
        # Whoever shows a value just now may still add to this list, which is copied.
        shown, self._samples, self._seen = self._samples, [], 0
        samples = tuple(shown)
        if not samples:
            return
        sizes = np.array([len(sample) for sample in samples], np.uint64)
        content = b""
        capacity = min(CAPACITY, int(sizes.sum()) // SAMPLES_TO_DICTIONARY)
        try:
            content = train_dictionary(b"".join(samples), sizes, max(capacity, 1))
            slot = self._new(self._host.core, content) if content else -errno.EINVAL
        except MemoryError:
            slot = -errno.ENOMEM
        if slot < 0:
            # Nothing in common, no memory, or no slot: later values may have better luck.
            self._wait()
            return
        self.trained += 1
        self._first_ratio = 0.0
        self._window = (0, 0)
        self._use(slot)
        self.sampling = False

    def _new(self, core: Engine, content: bytes) -> int:
        try:
            with self._host.lifetime:
                return core.dictionary_new(content, self._level)
        except (OSError, ValueError):  # closed
            return -errno.EBADF

    def _use(self, slot: int) -> None:
        old, self._slot = self._slot, slot
        put_codec(self._host, old)

    def forked(self) -> None:
        """In a forked child: what the thread had of samples is its parent's, and others are gathered."""
        self._worker.forked()

    def flush(self) -> None:
        """Wait until what was asked for in the background is done."""
        self._worker.flush()

    def close(self) -> None:
        """Use none any more.  What was stored with one keeps it.  Calling it again does nothing."""
        if isinstance(self._host.lifetime, ForkedLifetime):
            return
        with hold_back_signals():
            self._closed = True
            self._worker.close()
            self._samples.clear()
            self._use(NO_CODEC)


def put_codec(host: FrontEndHost, slot: int) -> None:
    """Hold a slot no longer; an engine that is closing takes it with it."""
    if slot != NO_CODEC:
        with suppress(OSError), host.lifetime:
            host.core.codec_put(slot)

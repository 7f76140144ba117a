"""What this machine offers, found out by trying it: never by a version number.

Every probe returns a :class:`~uzswap.probes.finding.Finding` and raises nothing; what it opens or makes it takes away
again.
"""

from __future__ import annotations

from uzswap.probes import kernel, machine
from uzswap.probes.finding import Finding

__all__ = ["doctor"]

#: the size of a swap file when none is given, as of Zswap's swap_size
_SWAP_SIZE = 8 << 30


def doctor() -> list[Finding]:
    """Try what uzswap can use of this machine, and return what was found: what ``uzswap doctor`` shows.

    A finding says ``what`` was tried, its ``level`` (``.value`` is "ok", "limited" or "missing"), in ``detail`` how it
    went, and in ``fix`` the one line that mends it; without what is ``required`` no engine runs.  It takes some
    milliseconds, makes a swap file and takes it away again.

    >>> [finding.what for finding in doctor()][:3]
    ['compiled core', 'liblz4', 'libzstd']
    """
    return [
        machine.core(),
        *machine.compressors(),
        *machine.swap_file(_SWAP_SIZE),
        machine.encryption(),
        machine.memory(),
        machine.heap(),
        machine.huge_pages(),
        *machine.userfaultfd(),
        machine.arrays(),
        machine.signal_faults(),
        machine.fuse(),
        kernel.zswap(),
        kernel.source_zswap(),
    ]

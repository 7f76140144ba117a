"""Whether what is written to the swap device is encrypted: AES-256-GCM, with a key that ends with the process.

The key is drawn when a file is made, and is in memory that is locked and in no core dump; so is that of a file which a
forked child makes.  Nothing that is on a disk is of any use without it.  core/device/record.py says what is encrypted.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from uzswap.errors import os_error

if TYPE_CHECKING:
    from uzswap.core.boundary.engine import Engine

__all__ = ["make_keys", "use_encryption"]


def make_keys(engine: Engine) -> int:
    """Have an engine encrypt what it writes.  0, or -errno: EOPNOTSUPP without libcrypto, EPERM without a lock."""
    failed = engine.make_keys()
    if failed == -errno.EOPNOTSUPP:
        with suppress(ImportError):
            # An interpreter may bring a libcrypto of its own, that only its own modules find.
            import _hashlib  # noqa: F401

            failed = engine.make_keys()
    return failed


def use_encryption(engine: Engine, swap: str | os.PathLike[str] | None, encrypt: bool | None) -> None:
    """Have an engine encrypt what it writes, where it is to.

    Parameters
    ----------
    swap
        As of :func:`~uzswap.devices.swap_file.open_swap`, which is called afterwards.
    encrypt
        True, False, or None: what has a name is, a file without one is not.  (Writeback with it takes 1.2 of the time
        and 1.5 of the CPU time, OpenSSL 3.0, 2 CPUs, 2026-11; below 1.1 it would be on for these as well.)

    Raises
    ------
    OSError
        It cannot be: EOPNOTSUPP there is no libcrypto, EPERM the key cannot be locked in memory, ENOMEM.
    """
    if swap is None or not (swap != "auto" if encrypt is None else encrypt):
        return
    failed = make_keys(engine)
    if not failed:
        return
    where = "the swap file" if swap == "auto" else os.fspath(swap)
    if failed == -errno.EOPNOTSUPP:
        text = f"{where} cannot be encrypted without libcrypto: install OpenSSL (libssl3), or give encrypt=False"
    elif failed == -errno.EPERM:
        text = (
            f"the key for {where} cannot be locked in memory: raise RLIMIT_MEMLOCK (ulimit -l), or give encrypt=False"
        )
    else:
        text = f"no key for {where} can be made"
    raise os_error(-failed, text)

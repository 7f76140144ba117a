"""The directory where an agent keeps what the next one is to know.

What is there is believed: limits that a former agent has lowered are written back to the files that it names.  Nobody
else may have a say in that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from uzswap.errors import os_error

__all__ = ["private_directory"]


def private_directory(path: Path) -> Path:
    """Make the directory when it is missing, mode 0700, and return where it really is.

    That it cannot be made is said when something is to be written there.

    Raises
    ------
    OSError
        EPERM others may write to it, or put another in its place.
    """
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    real = path.resolve()
    for place in (real, *real.parents):
        try:
            found = place.stat()
        except OSError:
            continue
        # In a directory such as /tmp others may add names, and not touch ours.
        others = 0o022 if place == real else 0 if found.st_mode & stat.S_ISVTX else 0o002
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & others:
            what = "others may write to it" if found.st_mode & others else f"it belongs to user {found.st_uid}"
            text = f"no place for an agent's state, since {what}: name one of your own, of mode 0700"
            raise os_error(errno.EPERM, text, str(place))
    return real

"""How much may be written to the device: a rate in the long run, and an amount in 24 hours, for all cgroups together.

Both are kept in a file, so that an agent that is restarted, or killed, does not begin with a full purse: what a request
may write is taken before it is made, and what it did not write is given back.  Times there are wall-clock, which can be
set: an entry from the future counts as one from now, and a clock that went back pays nothing in.

With hundreds of cgroups there are hundreds of requests in a second, so what is kept then has more taken than was: the
file may say less than there is, never more.

ChromeOS's swap_management keeps its daily limit the same way; the rate is oomd's ``swapout_bps_threshold``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["Budget"]

_DAY: Final = 86400.0
#: seconds of the day that are one entry: the file stays small
_GRAIN: Final = 900.0
#: seconds of the rate that can be saved up: so much may be written at once after a pause
_SAVED: Final = 120.0
#: seconds after one in which another writing of the file is for more than one request; and of the savings, how much
#: more is taken then: a kill costs so much at most
_SOON: Final = 1.0
_AHEAD: Final = 1 / 16


class Budget:
    """A write budget.

    Parameters
    ----------
    rate, day
        Bytes a second in the long run, and bytes in 24 hours.
    path
        Where it is kept; None keeps it in memory.
    say
        Told, once, that the file cannot be written, and again that it can.
    """

    def __init__(self, rate: int, day: int, path: Path | None, say: Callable[[str], object]) -> None:
        self._rate = rate
        self._day = day
        self._path = path
        self._say = say
        self._failing = False
        self._saved = rate * _SAVED
        #: when the savings were last added to, seconds since the epoch; None: never
        self._at: float | None = None
        #: (seconds since the epoch, bytes), oldest first
        self._spent: list[tuple[float, int]] = []
        #: savings and bytes spent as the file has them, and when it was written; None: it is not known to have them
        self._kept: tuple[float, int, float] | None = None
        self._load()

    def available(self, now: float) -> int:
        """Return bytes that may be written at a wall-clock time."""
        self._settle(now)
        return max(0, min(int(self._saved), self._day - self.spent))

    @property
    def spent(self) -> int:
        """Bytes written in the last 24 hours, as far as :meth:`available` was asked."""
        return sum(nbytes for _, nbytes in self._spent)

    def take(self, nbytes: int, now: float) -> None:
        """Spend bytes, and keep that before it is done."""
        self._settle(now)
        self._saved -= nbytes
        if self._spent and now - self._spent[-1][0] < _GRAIN:
            when, before = self._spent[-1]
            self._spent[-1] = (when, before + nbytes)
        else:
            self._spent.append((now, nbytes))
        if self._kept is None:
            self._keep()
        elif self._saved < self._kept[0] or self.spent > self._kept[1]:
            soon = 0 <= now - self._kept[2] < _SOON
            self._keep(int(self._rate * _SAVED * _AHEAD) if soon else 0)

    def give_back(self, nbytes: int) -> None:
        """Take back what was taken and not written."""
        self._saved = min(self._saved + nbytes, self._rate * _SAVED)
        left = nbytes
        while left > 0 and self._spent:
            when, before = self._spent.pop()
            if before > left:
                self._spent.append((when, before - left))
            left -= before

    def _settle(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self._saved = min(self._saved + (now - self._at) * self._rate, self._rate * _SAVED)
        self._at = now
        if self._spent and self._spent[-1][0] > now:
            self._spent = [(min(when, now), nbytes) for when, nbytes in self._spent]
        while self._spent and self._spent[0][0] <= now - _DAY:
            self._spent.pop(0)

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            told = json.loads(self._path.read_text())
            spent = [(float(when), max(0, int(nbytes))) for when, nbytes in told["spent"]]
            saved, at = float(told["saved"]), float(told["at"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            # Nobody knows what was spent: then all of it was, until the clock says otherwise.
            self._say(f"the write budget in {self._path} cannot be read ({error}): it begins empty")
            self._saved = 0.0
            return
        self._spent, self._saved, self._at = sorted(spent), min(saved, self._rate * _SAVED), at

    def keep(self) -> None:
        """Write it to its file."""
        self._keep()

    def _keep(self, ahead: int = 0) -> None:
        """Write the file, as if so many bytes more were taken."""
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        saved, spent = self._saved - ahead, self._spent
        if ahead and spent:
            spent = [*spent[:-1], (spent[-1][0], spent[-1][1] + ahead)]
        try:
            _write(new, json.dumps({"at": self._at, "saved": saved, "spent": spent}).encode())
            os.replace(new, self._path)
        except OSError as error:
            self._kept = None
            with contextlib.suppress(OSError):
                new.unlink()
            if not self._failing:
                self._say(f"the write budget cannot be kept in {self._path} ({error.strerror}): it goes on in memory")
            self._failing = True
        else:
            if self._failing:
                self._say(f"the write budget is kept in {self._path} again")
            self._failing = False
            self._kept = None if self._at is None else (saved, self.spent + ahead, self._at)


def _write(path: Path, content: bytes) -> None:
    """Make a file; all of it, or an error."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(fd)

"""What the kernel's own zswap offers.  A zero budget is all that is written, into a scratch cgroup."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from uzswap.mountinfo import mount_points
from uzswap.probes.finding import Finding, Level, reason

__all__ = ["source_zswap", "zswap"]


def zswap() -> Finding:
    """Whether the kernel itself has a zswap that does something."""
    what = "kernel zswap"
    switch = Path("/sys/module/zswap/parameters/enabled")
    try:
        enabled = switch.read_text().strip()
        devices = len(Path("/proc/swaps").read_text().splitlines()) - 1
    except OSError as error:
        return Finding(what, Level.MISSING, f"{switch}: {reason(error)}", "a kernel with CONFIG_ZSWAP")
    detail = f"enabled={enabled}, {devices} swap device{'' if devices == 1 else 's'}"
    if enabled != "Y":
        return Finding(what, Level.LIMITED, detail, f"echo Y | sudo tee {switch}")
    if devices == 0:
        return Finding(what, Level.LIMITED, detail, "add swap (mkswap, swapon)")
    return Finding(what, Level.OK, detail)


def _unified_cgroup() -> tuple[Path, Path] | None:
    """The cgroup2 mount and this process's cgroup in it."""
    for point in mount_points():
        if point.type == "cgroup2":
            mount = Path(point.path)
            for entry in Path("/proc/self/cgroup").read_text().splitlines():
                if entry.startswith("0::"):
                    own = mount / entry[3:].lstrip("/")
                    return mount, own if own.is_dir() else mount
    return None


def _writeback_refused(cgroup: Path, mount: Path) -> bool:
    while True:
        with contextlib.suppress(OSError):
            if (cgroup / "memory.zswap.writeback").read_text().strip() == "0":
                return True
        if cgroup == mount:
            return False
        cgroup = cgroup.parent


def source_zswap() -> Finding:
    """Whether the kernel's ``memory.reclaim`` knows ``source=zswap``: a zero budget tells and does nothing."""
    what = "kernel source=zswap"
    found = _unified_cgroup()
    if found is None:
        return Finding(what, Level.MISSING, "no cgroup2 file system is mounted", _UNIFIED)
    mount, own = found
    if "memory" not in (mount / "cgroup.controllers").read_text().split():
        return Finding(what, Level.MISSING, f"{mount} does not have the memory controller", _UNIFIED)
    for parent in (own, mount):
        scratch = parent / f"uzswap-doctor-{os.getpid()}"
        try:
            scratch.mkdir()
        except OSError:
            continue
        try:
            if (scratch / "memory.reclaim").exists():
                return _try_zero_budget(what, scratch, mount)
        finally:
            scratch.rmdir()
    # Without a scratch cgroup the statistics still tell: the series adds a key to memory.stat.
    for cgroup in (own, mount):
        with contextlib.suppress(OSError):
            keys = {line.split()[0] for line in (cgroup / "memory.stat").read_text().splitlines()}
            if "zswpwb_proactive_b" in keys:
                return Finding(what, Level.OK, f"{cgroup}/memory.stat has zswpwb_proactive_b")
            return Finding(what, Level.MISSING, f"{cgroup}/memory.stat has no zswpwb_proactive_b", _PATCHED)
    fix = "systemd-run --user --scope -p Delegate=yes uzswap doctor"
    return Finding(what, Level.MISSING, f"no cgroup with the memory controller below {mount} is ours to try", fix)


_UNIFIED = "boot with systemd.unified_cgroup_hierarchy=1"
_PATCHED = "a kernel with the proactive writeback series; uzswap needs none"


def _try_zero_budget(what: str, scratch: Path, mount: Path) -> Finding:
    try:
        (scratch / "memory.reclaim").write_text("0 source=zswap")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return Finding(what, Level.MISSING, "EOPNOTSUPP: built without zswap", "a kernel with CONFIG_ZSWAP")
        if error.errno == errno.EINVAL and _writeback_refused(scratch, mount):
            fix = "echo 1 into memory.zswap.writeback from here up to the root"
            return Finding(what, Level.LIMITED, "EINVAL, and memory.zswap.writeback is 0 on the way up", fix)
        return Finding(what, Level.MISSING, f"0 source=zswap: {reason(error)}", _PATCHED)
    return Finding(what, Level.OK, "0 source=zswap is accepted")

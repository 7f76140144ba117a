"""``python -m uzswap.devices DEVICE``: label a block device, as mkswap does, so that an engine takes it.

Whatever was on it is given up.
"""

from __future__ import annotations

import argparse
import os
import sys

from uzswap.devices.contents import Label, device_size, write_label, zero_device
from uzswap.devices.swap_file import MIN_SIZE, open_block_device
from uzswap.units import PAGE_SIZE, format_size

#: Zeroed at both ends: no mark of a file system, RAID or partition table stays.
_MARKS = 1 << 20


def label_device(path: str) -> int:
    """Label a block device and return how much an engine can use of it.  OSError EBUSY when it is in use."""
    fd, _ = open_block_device(path)
    try:
        size = device_size(fd)
        end = size // PAGE_SIZE * PAGE_SIZE - PAGE_SIZE
        if end < MIN_SIZE:
            raise ValueError(f"{path} has {format_size(size)}: a swap device needs {format_size(MIN_SIZE)} at least")
        zero_device(fd, 0, _MARKS)
        zero_device(fd, end + PAGE_SIZE - _MARKS, _MARKS)
        write_label(fd, end, Label(0, 0))
        os.fsync(fd)
    finally:
        os.close(fd)
    return end


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m uzswap.devices", description="Label a block device for uzswap.")
    parser.add_argument("device", help="a block device; whatever is on it is given up")
    path = parser.parse_args().device
    try:
        nbytes = label_device(path)
    except (OSError, ValueError) as error:
        print(f"uzswap: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {format_size(nbytes)} for swap")
    return 0


if __name__ == "__main__":
    sys.exit(main())

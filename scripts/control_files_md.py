"""Writes docs/control-files.md from the table of control files, so that the page cannot disagree with the engine.

Usage: ``python scripts/control_files_md.py``.  A test fails when the page is not what this writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uzswap.files.cgroup import FILES
from uzswap.files.engine import DEBUG, ENGINE_FILES, PARAMETERS
from uzswap.files.file import FileType

PAGE = Path(__file__).parent.parent / "docs" / "control-files.md"

#: What a write of text that a file does not take gives, beyond the errors that all files share.
ERRORS = {
    "memory.reclaim": "EINVAL, EAGAIN, EINTR; ENOSPC, EIO (`fair`, `coldest`)",
    "memory.peak": "",
    "memory.swap.peak": "",
    "memory.oom.group": "EINVAL, ERANGE",
    "memory.zswap.writeback": "EINVAL, ERANGE",
    "memory.pressure": "EINVAL, EBUSY",
    "cgroup.subtree_control": "EINVAL, ENOENT, EBUSY",
    "zswap/parameters/accept_threshold_percent": "EINVAL, ERANGE",
    "zswap/parameters/max_pool_percent": "EINVAL, ERANGE",
    "zswap/parameters/compressor": "ENOENT, EBUSY",
    "zswap/parameters/uzswap.walk": "ENOENT",
}

INTRODUCTION = """\
# Control files

<!-- Written by scripts/control_files_md.py from src/uzswap/files/cgroup.py: change that. -->

Names, formats, units, defaults and errors are those of the kernel's cgroup v2; what begins with `uzswap.` is ours.

```python
group = z.cgroup("/jobs/a")
group.read("memory.stat")
group.write("memory.zswap.max", "64M")
with group.open("memory.pressure") as file:  # for what belongs to one open file: triggers, peaks
    file.write("some 150000 2000000")
    file.poll(timeout=10)
```

The files of the engine (`vmstat`, `zswap/parameters/enabled`, ...) are in the same table:
`uzswap.files.cgroup.engine_file("vmstat").read(z, z.root)`; parameters also through
`z.parameters.get("compressor")` and `z.parameters.set("compressor", "zstd:9")`.

## What holds for all of them

| case | result |
|---|---|
| a write of nothing | 0, no effect |
| a write of more than 4096 bytes | E2BIG |
| bytes from the first NUL on | do not count |
| reading what is write-only, writing what is read-only | EACCES |
| a file that there is not, or not on the root cgroup | ENOENT |
| the cgroup was removed, also for a file opened before | ENODEV |
| the engine was closed | EBADF |
| text that the file does not take | the errno below, and nothing has changed |

Sizes are bytes with at most one of `K M G T P E`, in base 0 (`0x10`, `010`), rounded down to pages of 4096, or `max`.
An empty line means 0, as in the kernel: `echo > memory.max` sets the limit to zero.

`memory.reclaim` takes `SIZE [swappiness=0..200|max]` for resident memory, or `SIZE source=zswap [min_age=SECONDS]` for
compressed bytes to be written back. EAGAIN means that less was done than asked, not that nothing was: read
`uzswap.last_reclaim`, or use `group.reclaim(...)`, which returns the result and raises exceptions that carry it.
"""


def rows(files: Iterable[FileType[Any]], *, cgroup: bool) -> str:
    """The rows of one table."""
    lines = [
        f"| file | mode |{' root |' if cgroup else ''} unit | errors of a write | what it is |",
        f"|---|---|{'---|' if cgroup else ''}---|---|---|",
    ]
    for file in files:
        mode = ("r" if file.reader else "") + ("w" if file.writable else "")
        errors = ERRORS.get(file.name, "EINVAL" if file.writable else "")
        root = f" {'yes' if file.on_root else 'no'} |" if cgroup else ""
        lines.append(f"| `{file.name}` | {mode} |{root} {file.unit} | {errors} | {escape(file.help)} |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Keep the characters of a Markdown table apart from those of the text."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def keys(file: FileType[Any]) -> str:
    """The keys of a file of key-value lines that mean something here."""
    lines = ["| key | unit | what it counts |", "|---|---|---|"]
    lines += [f"| `{key.name}` | {key.unit} | {escape(key.help)} |" for key in file.keys if key.help]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    others = [file for file in ENGINE_FILES.values() if file not in (*PARAMETERS.values(), *DEBUG.values())]
    return "\n".join(
        [
            INTRODUCTION,
            "## Of a cgroup\n",
            rows(FILES.values(), cgroup=True),
            "### memory.stat\n",
            "The kernel's other keys are there too, and are 0: what they count does not exist here.\n",
            keys(FILES["memory.stat"]),
            "### memory.events\n",
            keys(FILES["memory.events"]),
            "### memory.swap.events\n",
            keys(FILES["memory.swap.events"]),
            "### uzswap.last_reclaim\n",
            keys(FILES["uzswap.last_reclaim"]),
            "## Module parameters\n",
            rows(PARAMETERS.values(), cgroup=False),
            "## Counters of debugfs\n",
            rows(DEBUG.values(), cgroup=False),
            "### zswap/debug/uzswap.device\n",
            keys(DEBUG["uzswap.device"]),
            "## Of the engine\n",
            rows(others, cgroup=False),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())

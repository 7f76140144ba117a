"""What the agent would have to work with on a tree: for ``uzswap doctor``."""

from __future__ import annotations

from typing import NamedTuple

from uzswap.agent.probes import probe
from uzswap.agent.tree import KERNEL, open_tree

__all__ = ["Outlook", "outlook"]


class Outlook(NamedTuple):
    """One line: what it is about, whether it is there, and how it went, or the remedy."""

    what: str
    there: bool
    detail: str


def outlook(path: str = KERNEL) -> list[Outlook]:
    """Try a cgroup of a tree, the first that has memory.reclaim; nothing is reclaimed.  Never an error."""
    what = "agent"
    try:
        tree = open_tree(path)
        with tree.root:
            machine = tree.machine()
            tried = None
            for name, _ in tree.find(["/*", "/"]):
                tried = probe(tree, tree.cgroup(name), machine)
                if tried.reclaim:
                    break
    except OSError as error:
        return [Outlook(what, False, f"{path}: {error.strerror}")]
    if tried is None:
        return [Outlook(what, False, f"there are no cgroups below {path}")]
    stages = "memory to zswap, and zswap to disk" if tried.source_zswap else "memory to zswap"
    found = [Outlook(what, True, f"{path}: {stages}")] if tried.reclaim else []
    return [*found, *(Outlook(f"agent: {word}", False, text) for word, text in sorted(tried.missing.items()))]

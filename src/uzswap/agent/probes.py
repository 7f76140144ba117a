"""What a tree can do, found out by trying, never by a version (SPEC 9); and what it cannot, with the remedy.

Nothing that reclaims is written: ``0 source=zswap`` asks for no bytes.  A blank line never is, which old kernels take
for all there is.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass, field

from uzswap.agent.tree import Machine, Tree
from uzswap.client.root import Cgroup

__all__ = ["Abilities", "probe"]


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a cgroup of a tree has."""

    engine: bool = False
    reclaim: bool = False
    source_zswap: bool = False
    min_age: bool = False
    recompress: bool = False
    memory_pressure: bool = False
    io_pressure: bool = False
    cpu: bool = False
    ages: bool = False
    #: what is missing: a word for it, and one line with the remedy
    missing: dict[str, str] = field(default_factory=dict)


def probe(tree: Tree, cgroup: Cgroup, machine: Machine) -> Abilities:
    """Try what a cgroup can do.

    Raises
    ------
    OSError
        It is gone, or the tree cannot be read.
    """
    names = cgroup.root.files(cgroup.path)
    missing: dict[str, str] = {}
    if "memory.stat" not in names:
        missing["memory"] = (
            "no memory controller in the cgroups below this root: echo +memory into cgroup.subtree_control of the root"
        )
    elif "memory.reclaim" not in names:
        missing["reclaim"] = "no memory.reclaim: a kernel from 5.19 on has it; nothing can be done here"
    memory_pressure = stalls(cgroup, "memory.pressure")
    if not memory_pressure:
        missing["pressure"] = (
            "no memory.pressure: boot with psi=1; until then only refaults tell when too much was taken"
        )
    reclaim = "memory.reclaim" in names
    source, why = _source_zswap(cgroup, names) if reclaim else (False, "")
    if why:
        missing["source"] = why
    min_age = source and _accepts(cgroup, "0 source=zswap min_age=0") == 0
    if "cpu.stat" not in names:
        missing["cpu"] = "no cpu.stat: whether a cgroup sleeps is told by its faults alone"
    missing |= _of_the_machine(tree, machine)
    return Abilities(
        engine=tree.engine,
        reclaim=reclaim,
        source_zswap=source,
        min_age=min_age,
        recompress="uzswap.recompress" in names,
        memory_pressure=memory_pressure,
        io_pressure=stalls(cgroup, "io.pressure"),
        cpu="cpu.stat" in names,
        ages={"uzswap.cold_age", "uzswap.promotion_age"} <= names,
        missing=missing,
    )


def stalls(cgroup: Cgroup, file: str) -> bool:
    """Whether a pressure file is there and can be read: without psi=1 it is not, or gives EOPNOTSUPP."""
    text = cgroup.read_if_there(file)
    return text is not None and "some" in text


def _accepts(cgroup: Cgroup, text: str) -> int:
    """Return the errno of a request for nothing, 0 for none."""
    try:
        cgroup.write("memory.reclaim", text.encode())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            raise
        return error.errno or errno.EIO
    return 0


def _source_zswap(cgroup: Cgroup, names: set[str]) -> tuple[bool, str]:
    number = _accepts(cgroup, "0 source=zswap")
    if number == 0:
        return True, ""
    in_stat = "zswpwb_proactive_b" in cgroup.read("memory.stat").split()
    if number == errno.EINVAL and in_stat:
        # The series checks writeback before the amount; the counter tells that the key is known.
        return True, "" if _writeback(cgroup, names) else (
            "memory.zswap.writeback is 0 here or above: echo 1 into it, or stage two leaves this cgroup alone"
        )
    if number == errno.EINVAL:
        return False, "memory.reclaim knows no source=zswap: it takes the proactive writeback series; no stage two"
    if number == errno.EOPNOTSUPP:
        return False, "the kernel was built without zswap (CONFIG_ZSWAP): no stage two"
    if number in (errno.EACCES, errno.EPERM):
        return False, "memory.reclaim may not be written: run as its owner, or have the cgroup delegated"
    return False, f"memory.reclaim does not take source=zswap ({errno.errorcode.get(number, number)}): no stage two"


def _writeback(cgroup: Cgroup, names: set[str]) -> bool:
    with contextlib.suppress(OSError):
        if "memory.zswap.writeback" in names:
            return cgroup.read("memory.zswap.writeback").strip() != "0"
    return True


def _of_the_machine(tree: Tree, machine: Machine) -> dict[str, str]:
    missing = {}
    if machine.zswap is False:
        missing["zswap"] = f"zswap is off: echo 1 > {tree.zswap}/enabled"
    elif machine.zswap is None:
        missing["zswap"] = "there is no zswap: a kernel with CONFIG_ZSWAP has it; memory goes straight to swap"
    if not machine.swap_total:
        missing["swap"] = (
            "the engine has no swap file: no stage two (Zswap(swap=...))"
            if tree.engine
            else "there is no swap: add a device (mkswap, swapon), else anonymous memory has nowhere to go"
        )
    elif machine.swap_free == machine.swap_total and not machine.pool:
        missing["unused"] = "swap is configured, and unused so far: if it stays so, see that memory.swap.max is not 0"
    return missing

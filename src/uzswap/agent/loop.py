"""The agent: looks after the cgroups of a tree, one round after another.

What holds: nothing but requests is ever written; the world is read anew in every round; a cgroup is known by
its inode, so another one of the same name begins anew; an error about one cgroup is that cgroup's alone; the root may
go away and come back.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from uzswap.agent.budget import Budget
from uzswap.agent.config import Choice, Config
from uzswap.agent.metrics import Metrics
from uzswap.agent.observe import GONE, Reader, Reading
from uzswap.agent.policies import POLICIES
from uzswap.agent.policies.policy import MEMORY, RECOMPRESS, ZSWAP, Decision, Done, Observation, Policy
from uzswap.agent.probes import Abilities, probe
from uzswap.agent.reads import InlineReads, Reads
from uzswap.agent.records import Record, Records
from uzswap.agent.requests import Finished, Request, Requests, file_of
from uzswap.agent.sight import Sight
from uzswap.agent.tree import Machine, Tree
from uzswap.client.root import PATIENCE, Root

__all__ = ["Agent", "Clock", "SystemClock"]

_log = logging.getLogger(__name__)

#: seconds from one look for cgroups to the next
_LOOK: Final = 6.0
#: seconds from one round to the next at least
_GRAIN: Final = 1.0
#: seconds of the first rest of a cgroup of which nothing could be had
_REST: Final = 12.0
#: seconds of the longest rest of stage two: what is in zswap grows older by itself
_REST_ZSWAP: Final = 120.0
#: of what was asked for: less is next to nothing
_FRUIT: Final = 0.1
#: requests in a row that have to bring nothing: the first may only use up a second chance (SPEC 6.5)
_FRUITLESS: Final = 2
#: stages that make memory free: while both rest a cgroup is not even looked at
_MOVING: Final = (MEMORY, ZSWAP)
#: gates that say that there is nothing, not that it must not be done
_NOTHING_TO_DO: Final = frozenset(
    {"floor", "nothing compressed", "no source", "no swap", "writeback off", "no ages", "swap full", "not worth it"}
)
#: Neither a kernel nor an engine has them: DAMON's regions are those of a process or of the machine, and an engine's
#: uzswap.writeback_age is of what is in its pool already, all cgroups together.
_NO_AGES: Final = (
    "farmem does nothing here: no uzswap.cold_age and no uzswap.promotion_age tell ages of pages in memory; "
    "choose twostage, whose gate is what refaults cost, or refault where there is no PSI"
)
#: seconds from one look to the next at a cgroup of which there is nothing to be had: what stays in zswap has to be met
#: twice, to take its second chance and to be compressed again, between the ages of 60 and 120 s
_SLOWEST: Final = 30.0
#: errnos after which a request counts as fruitless at once
_HARD: Final = frozenset(
    {errno.EINTR, errno.ETIMEDOUT, errno.EINVAL, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC}
)
#: errnos that are usual: success in part, or a cgroup that has gone
_USUAL: Final = frozenset({0, errno.EAGAIN, errno.ENOENT, errno.ENODEV})


class Clock(Protocol):
    """Time as the agent knows it; a replay has its own."""

    def monotonic(self) -> float:
        """Return seconds of a clock that is never set."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch."""
        ...


class SystemClock:
    """The machine's."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclass(slots=True)
class _Stage:
    """What a stage of a cgroup waits for."""

    rests_until: float = 0.0
    rest: float = 0.0
    fruitless: int = 0


@dataclass(slots=True)
class _Watched:
    """One cgroup."""

    path: str
    inode: int
    name: str
    policy: Policy
    settings: Any
    state: Any
    reader: Reader
    due: float
    done: list[Done] = field(default_factory=list)
    #: stage -> what waits for the request that is under way, with what its counter was
    waiting: dict[int, tuple[Decision, int | None]] = field(default_factory=dict)
    #: at the last look: bytes on the device that one compressed byte is; bytes there
    expansion: float = 1.0
    disk: int | None = None
    #: how many ticks until it is looked at again: more while there is nothing that could be done
    slower: int = 1
    stages: dict[int, _Stage] = field(default_factory=lambda: {stage: _Stage() for stage in (*_MOVING, RECOMPRESS)})


class Agent:
    """See the module.  For one thread.

    Parameters
    ----------
    tree
        Whose cgroups.
    requests
        Carries requests out.
    reads
        Carries reads out; by default in this thread, which one that hangs then holds up.
    say
        Told what an operator has to know, a line each; never the same one twice in a row.
    dry_run
        Decide and record, but ask for nothing.
    """

    def __init__(
        self,
        tree: Tree,
        config: Config,
        requests: Requests,
        records: Records,
        budget: Budget,
        *,
        reads: Reads | None = None,
        clock: Clock | None = None,
        say: Callable[[str], object] = _log.warning,
        dry_run: bool = False,
    ) -> None:
        self.tree = tree
        self.metrics = Metrics()
        self._config = config
        self._requests = requests
        self._reads: Reads = reads or InlineReads(tree.root)
        self._sight = Sight(tree, self._reads, config.agent.watch)
        self._records = records
        self._budget = budget
        self._clock = clock or SystemClock()
        self._say = say
        self._said: set[str] = set()
        self._dry_run = dry_run
        #: by path
        self._watched: dict[str, _Watched] = {}
        self._look_at = float("-inf")
        self._machine = Machine()
        #: inode -> (cgroup, decision, bytes taken from the budget, bytes that one of a decision's is on the device)
        self._under_way: dict[int, tuple[_Watched, Decision, int, float]] = {}
        self._reachable = True
        self._closing = False

    @property
    def watched(self) -> list[str]:
        """Paths of the cgroups that are looked after."""
        return sorted(self._watched)

    def round(self) -> float:
        """Do all that is due; return seconds until the next."""
        now = self._clock.monotonic()
        self._collect()
        if now >= self._look_at:
            # In step, so that what is told of all at once serves for what is due then.
            began = self._look_at if now < self._look_at + _LOOK else now
            self._look_at = began + _LOOK
            self._look(now, began)
        budget = self._budget.available(self._clock.wall())
        quiet = self._is_quiet()
        due = [one for one in self._watched.values() if one.due <= now]
        # Not even looked at while both stages rest: that is what a rest is for.
        awake = [one for one in due if any(one.stages[stage].rests_until <= now for stage in _MOVING)]
        told_of = self._sight.readings([(one.path, one.inode, one.reader) for one in awake], now)
        for one, told in zip(awake, told_of, strict=True):
            budget -= self._step(one, told, now, budget, quiet)
        for one in due:
            one.due = max(one.due + one.settings.tick * one.slower, now + one.settings.tick / 2)
        self._collect()
        self.metrics.watched, self.metrics.budget = len(self._watched), max(0, budget)
        self._records.flush(now)
        soonest = min([one.due for one in self._watched.values()], default=self._look_at)
        # Those that are due soon after one another have one round: with hundreds of cgroups the rounds would be dear.
        grain: float = min([_GRAIN, *(one.settings.tick / 4 for one in self._watched.values())])
        left = min(soonest, self._look_at) - self._clock.monotonic()
        # What is under way has mostly ended by then, and is asked for: a next stage may wait for it.
        return grain if self._under_way else max(grain, left)

    def close(self) -> None:
        """Wait for what is under way, and keep what is known."""
        self._closing = True
        self._requests.close()
        self._collect()
        self._reads.close()
        self._budget.keep()
        self._records.close()
        self.tree.root.close()

    # Who is looked after

    def _look(self, now: float, began: float) -> None:
        world = self._sight.world(now)
        if isinstance(world, OSError):
            if self._reachable:
                self._say(f"{self.tree.name} cannot be read ({world.strerror}): it is looked for again")
            self._reachable = False
            return
        if not self._reachable:
            self._say(f"{self.tree.name} is there again")
        self._reachable = True
        self._machine = world.machine
        found, new = set(), []
        for path, inode in world.cgroups:
            if self._config.ignores(path):
                continue
            found.add(path)
            before = self._watched.get(path)
            if before is None or before.inode != inode:
                if before is not None:
                    self._forget(path)
                new.append((path, inode))
        for path in self._watched.keys() - found:
            self._forget(path)
        choices = {path: self._config.of(path) for path, _ in new}
        new = [(path, inode) for path, inode in new if choices[path][0].enabled]
        for (path, inode), abilities in zip(new, self._probes([path for path, _ in new]), strict=True):
            if not isinstance(abilities, OSError):
                self._meet(path, inode, *choices[path], abilities, began)
            elif abilities.errno not in GONE:
                self._say_once(f"probe {abilities.errno}", f"{path}: {abilities.strerror}")

    def _probes(self, paths: list[str]) -> list[Abilities | OSError]:
        """Try what cgroups can do; those of an engine that tells of all at once, but its root, are all alike."""
        if not self._sight.at_once:
            return self._reads.all([partial(self._probe, path) for path in paths])
        found: dict[bool, Abilities] = {}
        probes: list[Abilities | OSError] = []
        for path in paths:
            known: Abilities | OSError | None = found.get(path == "/")
            if known is None:
                (known,) = self._reads.all([partial(self._probe, path)])
                if not isinstance(known, OSError):
                    found[path == "/"] = known
            probes.append(known)
        return probes

    def _probe(self, path: str, root: Root) -> Abilities:
        tree = self.tree.through(root)
        return probe(tree, tree.cgroup(path), self._machine)

    def _meet(self, path: str, inode: int, choice: Choice, settings: Any, abilities: Abilities, due: float) -> None:
        policy = POLICIES[choice.policy]
        missing = dict(abilities.missing)
        if "cpu" not in policy.WANTS:
            missing.pop("cpu", None)
        if "ages" in policy.WANTS and not abilities.ages:
            missing["ages"] = _NO_AGES
        for word, text in missing.items():
            self._say_once(word, f"{path}: {text}")
        if not abilities.reclaim:
            return
        if not self._sight.at_once:
            # Each at its own moment: many at once would be a peak.
            due += random.Random(inode).random() * min(settings.tick, _LOOK) / 2
        reader = Reader(self.tree.cgroup(path).path, abilities, policy.WANTS)
        self._watched[path] = _Watched(path, inode, choice.policy, policy, settings, policy.State(), reader, due)

    def _forget(self, path: str) -> None:
        self._watched.pop(path, None)
        self._records.forget(path)
        self.metrics.forget(path)

    def _say_once(self, word: str, text: str) -> None:
        if word not in self._said:
            self._said.add(word)
            self._say(text)

    def _is_quiet(self) -> bool:
        if not self._config.agent.quiet_hours:
            return False
        local = time.localtime(self._clock.wall())
        return self._config.is_quiet(local.tm_hour * 60 + local.tm_min)

    # One cgroup

    def _step(self, one: _Watched, told: Reading | OSError, now: float, budget: int, quiet: bool) -> int:
        """Do what a cgroup's policy decides from what its files told; returns bytes taken from the budget."""
        stages = one.stages
        if isinstance(told, OSError):
            if told.errno in GONE:
                self._forget(one.path)
            else:
                self._say_once(f"read {told.errno}", f"{one.path}: {told.strerror}: it is left alone meanwhile")
                self._rest(stages[MEMORY], now)
                stages[ZSWAP].rests_until = stages[MEMORY].rests_until
            return 0
        seen = one.reader.observation(told, now, self._machine, max(0, budget), quiet, tuple(one.done))
        one.state, decisions = one.policy.step(one.settings, one.state, seen)
        one.done.clear()
        self._show(one, seen)
        taken = 0
        if not self._machine.zswap:
            taken = max(0, seen.disk - (seen.disk if one.disk is None else one.disk))
            if taken:
                self._budget.take(taken, self._clock.wall())
        one.disk, one.expansion = seen.disk, seen.expansion
        if all(
            stages[decision.stage].rests_until > now or (not decision.nbytes and decision.gate in _NOTHING_TO_DO)
            for decision in decisions
        ):
            one.slower = min(2 * one.slower, max(1, int(_SLOWEST / one.settings.tick)))
        elif not any(stages[stage].fruitless for stage in _MOVING):
            one.slower = 1
        for decision in decisions:
            if decision.penalty:
                penalty = int(decision.penalty * seen.expansion)
                self._budget.take(penalty, self._clock.wall())
                taken += penalty
            # Over a lowered limit it is another counter, which is read when it is lowered.
            before = None if decision.by_limit else {MEMORY: seen.reclaimed, ZSWAP: seen.written}.get(decision.stage, 0)
            taken += self._act(one, decision, before, now)
        return taken

    def _act(self, one: _Watched, decision: Decision, before: int | None, now: float) -> int:
        if not decision.nbytes:
            self._record(one, decision, Done(decision.stage, 0, 0))
            return 0
        if one.stages[decision.stage].rests_until > now:
            self._record(one, _nothing(decision, "resting"), Done(decision.stage, 0, 0))
            return 0
        if self._dry_run:
            self._record(one, _because(decision, "dry run"), Done(decision.stage, decision.nbytes, 0))
            return 0
        busy = self._requests.busy(one.inode)
        if busy is not None:
            gate = "hung" if busy > self._config.agent.deadline + PATIENCE else "busy"
            if gate == "hung":
                self._say_once("hung", f"{one.path}: a request does not even end when it is interrupted")
                self._rest(one.stages[decision.stage], now)
            elif self._under_way[one.inode][1].stage != decision.stage:
                one.waiting[decision.stage] = decision, before
                return 0
            self._record(one, _nothing(decision, gate), Done(decision.stage, 0, 0))
            return 0
        taken = int(decision.nbytes * one.expansion) if decision.stage == ZSWAP else 0
        if taken:
            self._budget.take(taken, self._clock.wall())
        self._under_way[one.inode] = (one, decision, taken, one.expansion)
        try:
            self._requests.start(Request(one.inode, one.path, decision, before))
        except OSError as error:
            del self._under_way[one.inode]
            self._budget.give_back(taken)
            self._say_once(f"start {error.errno}", f"{one.path}: {error.strerror}")
            return 0
        # A replay's are done at once; the next stage of the same cgroup may follow.
        self._collect()
        return taken

    def _collect(self) -> None:
        for finished in self._requests.finished():
            self._finish(finished)

    def _finish(self, finished: Finished) -> None:
        one, decision, taken, expansion = self._under_way.pop(finished.request.inode)
        done = finished.done
        written = int(done.done * expansion)
        if taken > written:
            self._budget.give_back(taken - written)
        elif taken:
            self._budget.take(written - taken, self._clock.wall())
        one.done.append(done)
        self._record(one, decision, done)
        if done.errno not in _USUAL:
            name = errno.errorcode.get(done.errno, str(done.errno))
            self._say_once(name, f"{one.path}: {file_of(decision)} gave {name}: it rests a while")
        self._judge(one.stages[done.stage], done)
        waiting, one.waiting = one.waiting, {}
        # Nobody would wait for a request that begins while the agent ends, nor tell of what it did.
        if self._watched.get(one.path) is one and not self._closing:
            for decision, before in waiting.values():
                self._act(one, decision, before, self._clock.monotonic())

    def _judge(self, stage: _Stage, done: Done) -> None:
        if done.done > done.asked * _FRUIT:
            stage.rest, stage.fruitless = 0.0, 0
            return
        if done.stage == RECOMPRESS and done.errno not in _HARD:
            return  # all of it is young, or has been done: what is tried again before it is written is not fruitless
        stage.fruitless += 1
        if stage.fruitless >= _FRUITLESS or done.errno in _HARD:
            self._rest(stage, self._clock.monotonic(), None if done.stage == MEMORY else _REST_ZSWAP)

    def _rest(self, stage: _Stage, now: float, most: float | None = None) -> None:
        """Let a stage rest, twice as long as the last time."""
        longest = min(most or self._config.agent.rest_max, self._config.agent.rest_max)
        stage.rest = min(max(_REST, stage.rest * 2), longest)
        stage.rests_until = now + stage.rest

    # What is told

    def _record(self, one: _Watched, decision: Decision, done: Done) -> None:
        now = self._clock.wall()
        record = Record(
            time=now,
            until=now,
            count=1,
            inode=one.inode,
            cgroup=one.path,
            policy=one.name,
            stage=decision.stage,
            gate=decision.gate,
            inputs=dict(decision.inputs),
            asked=done.asked,
            done=done.done,
            errno=done.errno,
            seconds=done.seconds,
        )
        self._records.add(record)
        self.metrics.add(record)

    def _show(self, one: _Watched, seen: Observation) -> None:
        self._records.show(
            one.path,
            one.inode,
            self._clock.wall(),
            {
                "policy": one.name,
                "current": seen.current,
                "resident": seen.resident,
                "zswap": seen.zswap,
                "zswapped": seen.zswapped,
                "disk": seen.disk,
                "pressure": None if seen.memory_stall is None else seen.memory_stall.avg10,
            },
        )


def _because(decision: Decision, gate: str) -> Decision:
    return Decision(decision.stage, decision.nbytes, gate, decision.inputs, decision.min_age)


def _nothing(decision: Decision, gate: str) -> Decision:
    return Decision(decision.stage, 0, gate, decision.inputs)

"""What is proven of an action by killing what runs it, at each moment of each step.

A run goes through Argo, and its steps ask the API server through a line that is tapped; so the
moment is exact: before a step has seen anything, when it has written and does not know it yet,
when it has said all. In the end the change is there whole and was verified, or all is as before;
and no object was written twice.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from tiphys.policies.model import Outcome
from tiphys.policies.plan import workflow_name
from tiphys.service.conform.flights import Flight
from tiphys.service.conform.properties import (
    ACT,
    PRECHECK,
    ROLLBACK,
    VERIFY,
    Property,
    exactly,
    hold,
    planned,
    same,
    settled,
)
from tiphys.service.conform.runs import Flown, fly, publish_all
from tiphys.service.conform.tap import Asked, Reply, Tap, listening
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json
from tiphys.service.conform.worlds import World
from tiphys.service.outcomes import outcome
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.catalogue import find

_VARIANT = "-tapped"
_IDLE_ROLLBACK = 3
"""Requests of a rollback that has nothing to put back: door, claim, target."""
_SOON = 0.3
"""Seconds after which a controller that is about to be killed is dead."""


class Kind(StrEnum):
    """How a run is killed."""

    CONTAINER = "container killed"
    CONTROLLER = "controller killed"
    GRACE = "pod deleted"
    FORCE = "pod deleted by force"


@dataclass(frozen=True)
class Point:
    """A moment of a run: the nth request of a step, before it is done or when it is."""

    name: str
    step: StepName
    number: int = 1
    done: bool = False
    """It is done, and the step does not know it yet; else it is not done."""
    writes: bool = False
    """Of its writes; where a rollback writes nothing, of all its requests."""


POINTS = (
    Point("before precheck", PRECHECK),
    Point("in precheck", PRECHECK, done=True),
    Point("after precheck", ACT),
    Point("in act", ACT, done=True, writes=True),
    Point("after act", VERIFY),
    Point("in verify", VERIFY, number=2, done=True),
    Point("after verify", VERIFY, number=4, done=True),
    Point("before rollback", ROLLBACK),
    Point("in rollback", ROLLBACK, done=True, writes=True),
    Point("after rollback", ROLLBACK, number=4, done=True),
)


def kills(trial: Trial) -> Iterator[Property]:
    """Give every combination of a moment and a kind of death, in the table's order."""
    del trial
    for point in POINTS:
        for kind in Kind:
            prove = partial(_killed, point=point, kind=kind)
            yield Property(
                f"killed {point.name}: {kind}",
                prove,
                through_argo=True,
                kills=True,
                alone=kind is Kind.CONTROLLER,
            )


def sampled(actions: Sequence[str], *, few: bool = False) -> set[tuple[str, str]]:
    """Choose for each action every moment, each with one kind of death in turn.

    `few`: each moment for one action in ten, and still each kind. Gives (action, property).
    """
    kinds, chosen = list(Kind), set[tuple[str, str]]()
    for turn, action in enumerate(actions):
        for number, point in enumerate(POINTS):
            kind = kinds[(turn + number + number // len(kinds)) % len(kinds)]
            if not few or (turn - number) % len(POINTS) == 0:
                chosen.add((action, f"killed {point.name}: {kind}"))
    return chosen


# --- the line -------------------------------------------------------------------------------------


class _Line(Tap):
    """The line of all runs of a world, each with one who may come between."""

    def __init__(self, world: World) -> None:
        super().__init__(world.wire, before=self._come, after=self._leave)
        self.killers: dict[str, _Killer] = {}

    def _come(self, asked: Asked) -> Reply | None:
        killer = self.killers.get(asked.workflow)
        return killer.come(asked) if killer else None

    def _leave(self, asked: Asked) -> bool:
        killer = self.killers.get(asked.workflow)
        return killer is None or killer.leave(asked)


_LINES: WeakKeyDictionary[Any, _Line] = WeakKeyDictionary()


def _line(world: World) -> _Line:
    with world.lock:
        if world.wire not in _LINES:
            line = _Line(world)
            world.open.enter_context(listening(line, world.host))
            _LINES[world.wire] = line
        return _LINES[world.wire]


def _through(url: str, spec: Json) -> None:
    """Let every step of a template ask through the line, and say who asks."""
    for template in spec["templates"]:
        containers = template.get("containerSet", {}).get("containers", [])
        single = template.get("container")
        for one in [*containers, *([single] if single else [])]:
            place = f"{url}/{{{{workflow.name}}}}/{one['args'][0]}"
            one["env"].append({"name": "TIPHYS_KUBERNETES_URL", "value": place})


@dataclass
class _Killer:
    """Kills one run once, when it has come to a point."""

    flight: Flight
    point: Point
    kind: Kind
    reversible: bool
    seen: Counter[str] = field(default_factory=Counter[str])
    lock: threading.Lock = field(default_factory=threading.Lock)
    struck: bool = False
    thread: threading.Thread | None = None

    def come(self, asked: Asked) -> Reply | None:
        """Strike before a request is done; fail verify where a rollback is to be killed.

        Stopping the run would do that, too, but Argo tries no step again after a stop.
        """
        if self.point.step is ROLLBACK and asked.step == VERIFY:
            return Reply(503)
        return None if self.point.done or self._strikes(asked) is None else Reply(503)

    def leave(self, asked: Asked) -> bool:
        """Strike when a request is done."""
        return not self.point.done or self._strikes(asked) is None

    def _strikes(self, asked: Asked) -> bool | None:
        """Give None where the request is nothing to the killer, or where the step lives on."""
        with self.lock:
            of_writes = self.point.writes and (self.reversible or self.point.step is not ROLLBACK)
            if self.struck or asked.step != self.point.step or (of_writes and not asked.writes):
                return None
            self.seen[asked.step] += 1
            if self.seen[asked.step] < self._number:
                return None
            self.struck = True
        self.thread = threading.Thread(target=self._kill, daemon=True)
        self.thread.start()
        self.thread.join(_SOON if self.kind is Kind.CONTROLLER else None)
        return None if self.kind is Kind.CONTROLLER else True

    @property
    def _number(self) -> int:
        """The point's own; a rollback that puts nothing back has less to ask."""
        idle = self.point.step is ROLLBACK and not self.reversible
        return min(self.point.number, _IDLE_ROLLBACK) if idle else self.point.number

    def _kill(self) -> None:
        world = self.flight.world
        if self.kind is Kind.CONTROLLER:
            with _CONTROLLER:
                world.kill_controller()
            return
        back = self.point.step is ROLLBACK
        pod = next(p for p in self.flight.pods() if ("rollback" in _node(p)) is back)
        if self.kind is Kind.CONTAINER:
            alone = self.point.step in {VERIFY, ROLLBACK}
            world.kill_container(pod, "main" if alone else self.point.step)
        else:
            self.flight.delete_pod(pod, force=self.kind is Kind.FORCE)


_ACTED = {Result.ACTED, Result.ALREADY_DONE}
_CONTROLLER = threading.Lock()
"""One death of Argo's controller at a time."""


def _node(pod: Json) -> str:
    return str(pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"])


# --- the end --------------------------------------------------------------------------------------


def _killed(stage: Stage, trial: Trial, *, point: Point, kind: Kind) -> None:
    target, plan, before = planned(stage, trial)
    line = _line(stage.world)
    variant = publish_all(stage.world, partial(_through, line.url), _VARIANT)
    reversible = find(trial.action).reversible
    name = workflow_name(plan)
    killer = _Killer(Flight(stage.world, name), point, kind, reversible)
    line.killers[name] = killer
    flown = fly(stage.world, plan, variant)
    flown.ended()
    hold(killer.struck, f"the run never came {point.name}: {_said(flown)}")
    if killer.thread:
        killer.thread.join()
    _once(line, flown)
    result, why = outcome(flown.view())
    after = settled(stage)
    words = f"it ended {result}: {why}; {_said(flown)}"
    if result is Outcome.VERIFIED or (result is Outcome.INEFFECTIVE and not reversible):
        # What cannot be put back stays half done where act died after its first write.
        died = point.step is ACT and point.writes and flown.view().result(ACT) not in _ACTED
        half = result is Outcome.INEFFECTIVE and died
        exactly(plan, target, before, after, partly=half)
        hold(after != before, "act wrote, and nothing has changed")
    else:
        hold(result in {Outcome.ROLLED_BACK, Outcome.REFUSED}, words)
        same(before, after)


def _once(line: _Line, flown: Flown) -> None:
    """Hold that no step wrote the same object twice."""
    done = [one for one in line.done if one.workflow == flown.name and one.writes]
    for step in (ACT, ROLLBACK):
        counts = Counter((one.method, one.path) for one in done if one.step == step)
        often = [f"{method} {path}" for (method, path), count in counts.items() if count > 1]
        hold(not often, f"{step} wrote more than once: {', '.join(often)}")


def _said(flown: Flown) -> str:
    return ", ".join(f"{s.step}: {s.result} ({s.message})" for s in flown.view().steps)

"""Ranks components as causes of what changed, along the calls between them.

Trouble passes from a component to its callers, load from a component to those it calls. So a
component counts by its own change, by how much of its callers' trouble that explains, and by the
calls that it stopped making; a callee's load is never held against the callee. A change of what
only it has (its CPU, its memory) is explained by nobody else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tiphys.agents.causes.evidence import SUREST, Change, Evidence, Unseen, gather
from tiphys.agents.causes.signals import LOAD, OWN, SYMPTOMS, Kind, Scene, Symptom

EXPLAINED: Final = 0.5
"""What a caller's trouble counts for the component that explains it, against 1 of its own."""
OTHER_SYMPTOM: Final = 0.5
"""What a symptom of another kind than the one complained about counts: errors may come of slowness,
but errors that come of errors are likelier."""
CLOSE: Final = 0.8
"""Scores that are this near to each other do not tell two causes apart."""

_SLOW: Final = frozenset({Kind.LATENCY, Kind.CALL_LATENCY, Kind.OUTGOING})
_ALIKE: Final = (_SLOW, frozenset({Kind.AVAILABILITY}))


@dataclass(frozen=True)
class Cause:
    """One component that may be the cause, with what speaks for it."""

    component: str
    score: float
    established: bool
    """A change that speaks for it is, on its own, not put down to chance."""
    evidence: Sequence[Change]
    """Its own changes and the calls that it stopped making; the weightiest first."""
    explains: Sequence[str]
    """Callers whose trouble would follow from it; the weightiest first."""


@dataclass(frozen=True)
class Causes:
    """The answer."""

    ranked: Sequence[Cause]
    """Best first. Where nothing happened they are hints: an order, without a claim."""
    first: Change | None
    """The established change that began before all others."""
    followed: Sequence[Change]
    """Established changes that follow from the first cause."""
    elsewhere: Sequence[Change]
    """Established changes of components that what was complained about does not depend on."""
    unseen: Sequence[Unseen]
    blind: Sequence[str]
    """Components of the call graph without one readable signal: not known to be healthy."""

    @property
    def nothing(self) -> bool:
        """No change stands out of the noise: nothing happened that these signals show."""
        return not any(cause.established for cause in self.ranked)

    @property
    def unsure(self) -> Sequence[Cause]:
        """The causes that the first cannot be told from."""
        return [c for c in self.ranked[1:] if c.score >= CLOSE * self.ranked[0].score]


def find_causes(scene: Scene) -> Causes:
    """Rank every component with a signal. Raises ValueError for a window too short to judge."""
    evidence = gather(scene.signals, scene.window)
    judged = _Judged(scene, evidence)
    named = {s.component for s in scene.signals}
    near = {c for c in named if judged.matters(c)}
    ranked = sorted(
        (cause for c in near if (cause := judged.cause(c)).score > 0),
        key=lambda cause: (-cause.score, judged.place(cause.component)),
    )
    sure = sorted((c for c in evidence.changes.values() if c.established), key=lambda c: c.at)
    within = [c for c in sure if c.component in near]
    top = ranked[0] if ranked and any(c.established for c in ranked) else None
    read = {c.component for c in scene.signals} - _all_unseen(scene, evidence)
    everyone = set(scene.calls) | {d for ds in scene.calls.values() for d in ds}
    return Causes(
        ranked=ranked,
        first=within[0] if within else None,
        followed=[c for c in within if top and judged.follows(c, top)],
        elsewhere=[c for c in sure if c.component not in near],
        unseen=evidence.unseen,
        blind=sorted(c for c in everyone | named if c not in read),
    )


def _all_unseen(scene: Scene, evidence: Evidence) -> set[str]:
    lost: dict[str, int] = {}
    for one in evidence.unseen:
        lost[one.component] = lost.get(one.component, 0) + 1
    every: dict[str, int] = {}
    for signal in scene.signals:
        every[signal.component] = every.get(signal.component, 0) + 1
    return {c for c, count in lost.items() if count == every[c]}


class _Judged:
    """Evidence and call graph of one scene together."""

    def __init__(self, scene: Scene, evidence: Evidence) -> None:
        self._symptom = scene.symptom
        self._calls = {a: [d for d in dict.fromkeys(ds) if d != a] for a, ds in scene.calls.items()}
        # Ties are kept in the order given: a name decides nothing.
        given = [s.component for s in scene.signals] + [*scene.calls]
        self._places = {name: i for i, name in reversed([*enumerate(given)])}
        self._callers: dict[str, list[str]] = {}
        for caller, callees in self._calls.items():
            for callee in callees:
                self._callers.setdefault(callee, []).append(caller)
        self._told_apart = {s.component for s in scene.signals if s.kind is Kind.CALL_LATENCY}
        self._in_graph = set(self._calls) | set(self._callers)
        self._above: dict[str, frozenset[str]] = {}
        self._by_component: dict[str, list[Change]] = {}
        for change in evidence.changes.values():
            self._by_component.setdefault(change.component, []).append(change)

    def place(self, component: str) -> int:
        """Give where a component comes in what was given."""
        return self._places.get(component, len(self._places))

    def matters(self, component: str) -> bool:
        """Whether what was complained about can depend on it; yes where that is not known."""
        complained = self._symptom
        if complained is None or not {component, complained.component} <= self._in_graph:
            return True
        return component == complained.component or complained.component in self.above(component)

    def above(self, component: str) -> frozenset[str]:
        """Everything that calls it, directly or through others; itself never, cycles or not."""
        if component not in self._above:
            seen: set[str] = set()
            waiting = [component]
            while waiting:
                for caller in self._callers.get(waiting.pop(), ()):
                    if caller != component and caller not in seen:
                        seen.add(caller)
                        waiting.append(caller)
            self._above[component] = frozenset(seen)
        return self._above[component]

    def cause(self, component: str) -> Cause:
        """Weigh one component."""
        own = [
            (self._counts(c), c)
            for c in self._by_component.get(component, ())
            if c.kind is not Kind.OUTGOING
        ]
        own += self._stopped_calling(component)
        own += self._slow_to_callers(component)
        own = sorted((w for w in own if w[0] > 0), key=lambda w: -w[0])
        strength = own[0][0] if own else 0.0
        shared = {
            caller: min(strength, trouble)
            for caller in self.above(component)
            if (trouble := self._trouble(caller)) > 0
        }
        return Cause(
            component=component,
            score=strength + EXPLAINED * sum(sorted(shared.values())) if strength else 0.0,
            established=any(change.established for _, change in own),
            evidence=[change for _, change in own],
            explains=sorted(shared, key=lambda c: (-shared[c], self.place(c))) if strength else [],
        )

    def follows(self, change: Change, top: Cause) -> bool:
        """Whether a change is what the cause would bring about."""
        if change in top.evidence:
            return change.component != top.component
        if change.kind in SYMPTOMS:
            return change.component in self.above(top.component)
        return change.kind in LOAD and top.component in self.above(change.component)

    def _trouble(self, component: str) -> float:
        mine = self._by_component.get(component, ())
        return max((self._counts(c) for c in mine if c.kind in SYMPTOMS), default=0.0)

    def _counts(self, change: Change) -> float:
        """What a change counts for its own component as the cause."""
        if change.kind in LOAD:
            # Nobody known sends it the load: more of it is where the trouble comes in.
            entry = change.component in self._in_graph and not self._callers.get(change.component)
            return change.weight if entry and change.rises else 0.0
        if change.kind in OWN or _same_kind(self._symptom, change.kind):
            return change.weight
        return OTHER_SYMPTOM * change.weight

    def _slow_to_callers(self, component: str) -> list[tuple[float, Change]]:
        """Give what is said of all calls of a caller together: one of those called, or the
        caller's own network, is slow. Nothing where calls are told apart."""
        found: list[tuple[float, Change]] = []
        for caller in (component, *self._callers.get(component, ())):
            if not self._told_apart.isdisjoint(self._calls.get(caller, ())):
                continue
            # One among this many, each as likely as the others.
            chance = float(np.log10(1 + len(self._calls.get(caller, ()))))
            found += [
                (self._counts(c) - chance, c)
                for c in self._by_component.get(caller, ())
                if c.kind is Kind.OUTGOING
            ]
        return found

    def _stopped_calling(self, component: str) -> list[tuple[float, Change]]:
        """Give the load its callees lost, where it has not lost as much itself."""
        callees = self._calls.get(component, ())
        lost = [c for d in callees for c in self._by_component.get(d, ()) if _less_load(c)]
        if not lost:
            return []
        mine = (c.weight for c in self._by_component.get(component, ()) if _less_load(c))
        # Among many callees one loses some of its load by chance.
        chance = float(np.log10(len(callees)))
        usual = max(mine, default=0.0)
        return [(min(SUREST, c.weight - chance - usual), c) for c in lost]


def _less_load(change: Change) -> bool:
    return change.kind in LOAD and not change.rises


def _same_kind(symptom: Symptom | None, kind: Kind) -> bool:
    complained = symptom.kind if symptom else None
    if complained is None or complained not in SYMPTOMS:
        return True
    return any(complained in group and kind in group for group in _ALIKE)

"""Weighs which story retold evidence tells, for where no rule of readings.yaml settles it.

Invariants: a story is told only where its weight reaches the least and stands out by the margin
from every story with another outcome; a score is the sum of weights that stories.yaml shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tiphys.service.evaluation.retold.rules import Rule, Told, rule
from tiphys.service.evaluation.retold.words import table


@dataclass(frozen=True)
class Story:
    """What may have happened, and which evidence speaks for it and against it."""

    name: str
    outcome: str
    """The decision, in the words of runbook cases; stories of one outcome do not contend."""
    tells: frozenset[str]
    """The symptoms that it stands for; none where a human has to see it."""
    needs: Sequence[Rule]
    """One of these has to hold."""
    bars: Sequence[Rule]
    """None of these may hold."""
    weighs: Sequence[tuple[int, Rule]]


@dataclass(frozen=True)
class _Table:
    least: int
    margin: int
    overrules: int
    bears: int
    stories: Sequence[Story]


@cache
def stories() -> _Table:
    """Read stories.yaml."""
    written = table("stories.yaml")
    every = [
        Story(
            name,
            one["outcome"],
            frozenset(one["tells"]),
            [rule(line) for line in one.get("needs", ())],
            [rule(line) for line in one.get("bars", ())],
            [(weight, rule(line)) for weight, lines in one["weighs"].items() for line in lines],
        )
        for name, one in written["stories"].items()
    ]
    return _Table(
        written["least"], written["margin"], written["overrules"], written["bears"], every
    )


def scores(told: Told) -> Mapping[str, int]:
    """Give the score of each story that is not barred, the highest first."""
    found = {
        one.name: sum(weight for weight, line in one.weighs if told.holds(line))
        for one in stories().stories
        if (not one.needs or any(map(told.holds, one.needs))) and not any(map(told.holds, one.bars))
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


@dataclass(frozen=True)
class Weighed:
    """What the evidence tells by weight."""

    story: Story | None
    """The one that stands out; none where evidence is thin or speaks for two."""
    overrules: bool
    """Whether it stands against another answer of the rules."""
    borne_out: frozenset[str]
    """The outcomes that enough speaks for."""


def weighed(told: Told) -> Weighed:
    """Weigh every story."""
    read = stories()
    by_name = {one.name: one for one in read.stories}
    ranked = [(by_name[name], score) for name, score in scores(told).items()]
    borne_out = frozenset(one.outcome for one, score in ranked if score >= read.bears)
    if not ranked or ranked[0][1] < read.least:
        return Weighed(None, False, borne_out)
    best, score = ranked[0]
    others = [other for one, other in ranked if one.outcome != best.outcome]
    if score - max(others, default=0) < read.margin:
        return Weighed(None, False, borne_out)
    return Weighed(best, score >= read.overrules, borne_out)

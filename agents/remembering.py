"""Lays what was tried before beside what was found now: facts for conditions, evidence to cite."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from tiphys.agents.experience import (
    HORIZON,
    End,
    Experience,
    Tally,
    of_object,
    tallied,
    wilson,
)
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import Findings
from tiphys.policies.model import Json, Source
from tiphys.workflow_templates import catalogue

_BAD: Final = {
    End.CAME_BACK: "came back {}x",
    End.UNDONE: "undone by a person {}x",
    End.ROLLED_BACK: "rolled back {}x",
    End.NO_EFFECT: "without effect {}x",
    End.MADE_WORSE: "froze its target {}x",
}


def remembered(findings: Findings, book: Notebook) -> Findings:
    """Add `experience` to the facts, and evidence where anything was tried before."""
    experience = findings.case.experience
    uids = {target.uid for target in findings.targets.values()}
    kinds = {target.kind for target in findings.targets.values()}
    here = tallied(of_object(experience, uids))
    everywhere = [t for t in (experience.kinds if experience else ()) if t.kind in kinds]
    now = findings.case.now or book.now()
    told: dict[str, Json] = {
        "here": {_key(t): t.as_facts(now) for t in here},
        "kind": {_key(t): t.as_facts(now) for t in everywhere},
    }
    untried: dict[str, Json] = {
        action.name.replace("-", "_"): Tally(action.name, "").as_facts(now)
        for action in catalogue.every()
    }
    facts: dict[str, Json] = {
        scope: {**untried, **found} for scope, found in told.items() if isinstance(found, dict)
    }
    findings = replace(findings, facts={**findings.facts, "experience": facts})
    if experience is None or not (here or everywhere):
        return findings
    found = book.write(
        Source.HISTORY,
        f"what was tried for {', '.join(experience.alerts)} in the last {HORIZON.days} days",
        told,
        in_words(here, everywhere, experience),
    )
    return replace(findings, evidence=[*findings.evidence, found])


def tried_only(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Leave out what was never tried, which says nothing to a reader."""
    return {
        scope: {name: one for name, one in found.items() if _was_tried(one)}
        for scope, found in facts.items()
        if isinstance(found, dict)
    }


def _was_tried(one: Json) -> bool:
    counts = one if isinstance(one, dict) else {}
    return any(counts.get(key) for key in ("tried", "too_early", "by_hand"))


def in_words(here: Iterable[Tally], everywhere: Iterable[Tally], experience: Experience) -> str:
    """Say it in one sentence, with the sample sizes."""
    said = [f"{_said(t)} on this very object" for t in here]
    said += [f"{_said(t)} on any {t.kind} of the cluster" for t in everywhere]
    return f"tried before for {', '.join(experience.alerts)}: {'; '.join(said)}"


def _said(tally: Tally) -> str:
    words = f"{tally.action} helped {tally.helped} of {tally.tried} times"
    bad = [how.format(tally.ends[end]) for end, how in _BAD.items() if tally.ends.get(end)]
    if tally.tried:
        least, most = wilson(tally.helped, tally.tried)
        bad.insert(0, f"so {100 * least:.0f} to {100 * most:.0f} % of the time")
    if early := tally.ends.get(End.TOO_EARLY):
        bad.append(f"too early to say {early}x")
    if tally.by_hand:
        bad.append(f"and {tally.by_hand}x by hand, which do not count")
    return f"{words} ({', '.join(bad)})" if bad else words


def _key(tally: Tally) -> str:
    return tally.action.replace("-", "_")

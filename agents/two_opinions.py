"""The playbook's opinion and the model's, as one reasoner.

Invariants: the model alone starts nothing where a playbook covers the alert, and nowhere unless the
installation says so; where the two do not say the same a human gets both arguments; a model that
has no usable answer leaves the decision to the playbook, which says so.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tiphys.agents.fitting import UnfitError, fitting
from tiphys.agents.model_failures import NotRecordedError
from tiphys.agents.notebook import short
from tiphys.agents.playbooks import DEFAULT, Playbooks
from tiphys.agents.ports import Answer, Choice, Findings, Reasoner, ReasonerFailedError
from tiphys.policies.model import DecidedBy, Json

_LOG = logging.getLogger(__name__)
_EACH: Final = 650
"""Characters of each argument."""


class TwoOpinions:
    """Asks both; fails only where the playbooks do."""

    def __init__(self, playbooks: Playbooks, model: Reasoner, *, alone: bool = False) -> None:
        """`alone`: the model decides where no playbook covers the alert."""
        self._playbooks = playbooks
        self._model = model
        self._alone = alone

    async def decide(self, findings: Findings) -> Choice:
        """Ask both; raises `NotRecordedError` where a replay has no answer."""
        ours = await self._playbooks.decide(findings)
        try:
            theirs = await self._model.decide(findings)
        except NotRecordedError:
            raise
        except ReasonerFailedError as error:
            return _without(ours, f"the first reasoner had no answer: {error}", error)
        except Exception as error:
            _LOG.exception("the model's reasoner failed")
            return _without(ours, f"the first reasoner failed: {type(error).__name__}", None)
        if ours.decided_by.playbook == DEFAULT:
            return self._uncovered(ours, theirs)
        return _agreed(ours, theirs) if _same(ours, theirs) else _disagreed(ours, theirs)

    def _uncovered(self, ours: Choice, theirs: Choice) -> Choice:
        if not self._alone:
            argument = f"{ours.reason}. The model would {_told(theirs)}"
            return _both(ours, theirs, argument, "the model alone may not decide here")
        if theirs.shared_from and _takes_parameters(theirs.action):
            argument = (
                f"{ours.reason}. For incident {theirs.shared_from}, which looks alike, the model "
                f"would {_told(theirs)}; its parameters are for that one alone"
            )
            return _both(ours, theirs, argument, "the model was not asked about this one")
        by = theirs.decided_by.model_copy(update={"note": "no playbook covers this alert"})
        return replace(theirs, decided_by=by)


def _same(ours: Choice, theirs: Choice) -> bool:
    """Tell whether both say the same, down to the parameters where those were chosen for this."""
    if ours.answer is not theirs.answer:
        return False
    if ours.answer is not Answer.ACT:
        return True
    if (ours.action, ours.target) != (theirs.action, theirs.target):
        return False
    if theirs.shared_from:
        return True
    wanted = _fitted(ours)
    return wanted is not None and wanted == _fitted(theirs)


def _fitted(choice: Choice) -> Mapping[str, Json] | None:
    try:
        return fitting(choice.action, choice.parameters)[1].model_dump(mode="json")
    except UnfitError:
        return None


def _takes_parameters(action: str) -> bool:
    try:
        return bool(action) and bool(fitting(action, {})[0].parameters.model_fields)
    except UnfitError:
        return True


def _agreed(ours: Choice, theirs: Choice) -> Choice:
    reason = f"{short(ours.reason, _EACH)} The model agrees: {short(theirs.reason, _EACH)}"
    if ours.answer is Answer.ESCALATE:
        reason = f"{short(ours.reason, _EACH)} The model says: {short(theirs.reason, _EACH)}"
    note = f"the model agrees, asked for incident {theirs.shared_from}"
    return replace(
        ours,
        reason=reason,
        evidence=_cited(ours, theirs),
        decided_by=_by(ours, theirs, note if theirs.shared_from else "the model agrees"),
        confidence=min(ours.confidence, theirs.confidence),
        fetched=theirs.fetched,
    )


def _disagreed(ours: Choice, theirs: Choice) -> Choice:
    """Hand over to a human: neither doing nothing nor acting is safe while one of both objects."""
    name = ours.decided_by.playbook
    argument = (
        f"The playbook {name} and the model disagree. The playbook would {_told(ours)}. "
        f"The model would {_told(theirs)}"
    )
    return _both(ours, theirs, argument, "the model disagrees")


def _both(ours: Choice, theirs: Choice, argument: str, note: str) -> Choice:
    return Choice(
        answer=Answer.ESCALATE,
        reason=argument,
        evidence=_cited(ours, theirs),
        decided_by=_by(ours, theirs, note),
        confidence=min(ours.confidence, theirs.confidence),
        fetched=theirs.fetched,
    )


def _told(choice: Choice) -> str:
    what = {
        Answer.NOTHING: "do nothing",
        Answer.ESCALATE: "hand over to a human",
        Answer.ACT: f"{choice.action} on the {choice.target}",
    }[choice.answer]
    given = ", ".join(f"{name} {value}" for name, value in choice.parameters.items())
    return f"{what}{f' ({short(given, 200)})' if given else ''}: {short(choice.reason, _EACH)}"


def _by(ours: Choice, theirs: Choice, note: str) -> DecidedBy:
    """Name both: the playbook decides, and the model with these words was heard."""
    seen = {"model": theirs.decided_by.model, "prompt_hash": theirs.decided_by.prompt_hash}
    return ours.decided_by.model_copy(update={**seen, "note": note})


def _cited(ours: Choice, theirs: Choice) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*ours.evidence, *theirs.evidence)))


def _without(ours: Choice, why: str, error: ReasonerFailedError | None) -> Choice:
    by = ours.decided_by.model_copy(update={"note": short(why)})
    return replace(ours, decided_by=by, fetched=error.fetched if error else ())

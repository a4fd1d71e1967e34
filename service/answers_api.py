"""The HTTP API of questions about an incident and of the whole at a glance."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Incident, Noun
from tiphys.service.answers import MAX_QUESTION, Answer, answer
from tiphys.service.api import Desk, StopState
from tiphys.service.api_people import Viewer

router = APIRouter(prefix="/api")

MOST_OPEN = 1000


class Status(Noun):
    """What is open, and whether anything is stopped."""

    open: int
    states: dict[str, int]
    incidents: tuple[Incident, ...]
    """The newest first."""
    stop: StopState


@router.get("/incidents/{incident_id}/answers")
async def ask(
    desk: Desk,
    caller: Viewer,
    incident_id: str,
    question: Annotated[str, Query(min_length=1, max_length=MAX_QUESTION)],
) -> Answer:
    """Answer from the incident's evidence alone, with its ids; nothing found is an answer too."""
    view = await desk.views.incident(incident_id)
    caller.seen(view.incident)
    return answer(view.evidence, question)


@router.get("/status")
async def status(desk: Desk, caller: Viewer) -> Status:
    """Say what is open, and whether the stop is engaged."""
    states = [state.value for state in State if state != State.CLOSED]
    found = caller.visible(await desk.views.incidents(states, MOST_OPEN), MOST_OPEN)
    facts = await desk.stop.read() if desk.stop else None
    known = StopState(engaged=None, reason="the stop namespace cannot be read")
    if facts is not None:
        known = StopState(engaged=facts.engaged, reason=facts.reason)
    counts = Counter(incident.state for incident in found)
    return Status(open=len(found), states=dict(counts), incidents=tuple(found), stop=known)

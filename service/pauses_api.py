"""The HTTP API of pauses, under /api/pauses.

Who may act in a scope may pause it; to resume takes an admin there, or whoever paused alone.
"""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from tiphys.policies.model import Noun
from tiphys.policies.people import PersonRole
from tiphys.service.api import By, Desk
from tiphys.service.api_people import Caller, Operator, Viewer
from tiphys.service.pauses import CLUSTER, Pause, Pauses, namespace_in, parse_time

router = APIRouter(prefix="/api/pauses")


class PauseWish(Noun):
    """Who pauses what, for how long, and why."""

    scope: str = Field(default=CLUSTER, max_length=100)
    """`cluster`, or `namespace:NAME`."""
    time: str = Field(default="1h", max_length=20)
    """A number with s, m, h or d."""
    by: By = None
    reason: str = Field(default="", max_length=2000)


@router.get("")
async def list_pauses(desk: Desk, caller: Viewer) -> list[Pause]:
    """List the pauses that last, the first to end first; everybody sees what holds a cluster."""
    found = await Pauses(desk.ledger).all()
    return [pause for pause in found if pause.scope == CLUSTER or _sees(caller, pause)]


@router.post("")
async def pause(desk: Desk, caller: Operator, wish: PauseWish) -> Pause:
    """Let nothing new start in a scope for a while; it ends by itself."""
    by = caller.named(wish.by).name
    caller.demand(PersonRole.OPERATOR, namespace_in(wish.scope))
    lasts = parse_time(wish.time)
    return await Pauses(desk.ledger).pause(wish.scope, lasts, by=by, reason=wish.reason)


@router.delete("")
async def resume(
    desk: Desk,
    caller: Operator,
    by: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    scope: Annotated[str, Query(max_length=100)] = CLUSTER,
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> list[Pause]:
    """End the pauses of a scope, whoever's they are; gives them."""
    ended = await Pauses(desk.ledger).resume(scope, person=caller.named(by), reason=reason)
    if ended:
        desk.wake()
    return ended


def _sees(caller: Caller, pause: Pause) -> bool:
    namespace = namespace_in(pause.scope)
    return caller.person is None or caller.person.may(PersonRole.VIEWER, namespace)

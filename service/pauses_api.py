"""The HTTP API of pauses, under /api/pauses: who may is what `api.office` says."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from tiphys.policies.model import Noun
from tiphys.service.api import Desk
from tiphys.service.pauses import CLUSTER, Pause, Pauses, parse_time

router = APIRouter(prefix="/api/pauses")

Who = Annotated[str, Query(min_length=1, max_length=200)]


class PauseWish(Noun):
    """Who pauses what, for how long, and why."""

    scope: str = Field(default=CLUSTER, max_length=100)
    """`cluster`, or `namespace:NAME`."""
    time: str = Field(default="1h", max_length=20)
    """A number with s, m, h or d."""
    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(default="", max_length=2000)


@router.get("")
async def list_pauses(desk: Desk) -> list[Pause]:
    """List the pauses that last, the first to end first."""
    return await Pauses(desk.ledger).all()


@router.post("")
async def pause(desk: Desk, wish: PauseWish) -> Pause:
    """Let nothing new start in a scope for a while; it ends by itself."""
    lasts = parse_time(wish.time)
    return await Pauses(desk.ledger).pause(wish.scope, lasts, by=wish.by, reason=wish.reason)


@router.delete("")
async def resume(
    desk: Desk,
    by: Who,
    scope: Annotated[str, Query(max_length=100)] = CLUSTER,
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> list[Pause]:
    """End the pauses of a scope, whoever's they are; gives them."""
    ended = await Pauses(desk.ledger).resume(scope, by=by, reason=reason)
    if ended:
        desk.wake()
    return ended

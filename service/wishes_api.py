"""The HTTP API of a person's wish for an action: `POST /api/runs`."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from tiphys.policies.model import Incident, Json, Noun
from tiphys.service.api import By, Desk
from tiphys.service.api_people import Operator

router = APIRouter(prefix="/api/runs")


class RunWish(Noun):
    """Who wants which action on what, and why."""

    action: str = Field(min_length=1, max_length=100)
    """As `GET /api/catalogue` names it."""
    target: str = Field(min_length=1, max_length=400)
    """`KIND/NAMESPACE/NAME`, such as `deployment/shop/cart`, or `KIND/NAME`, such as `node/n1`."""
    parameters: Annotated[dict[str, Json], Field(max_length=20)] = {}
    """The action's own; a number may be text."""
    by: By = None
    reason: str = Field(min_length=1, max_length=2000)


@router.post("")
async def run(desk: Desk, caller: Operator, wish: RunWish) -> Incident:
    """Have an action done, in an incident of its own; gate and approval as for any other."""
    incident = await desk.wishes.ask(
        wish.action,
        wish.target,
        wish.parameters,
        person=caller.named(wish.by),
        reason=wish.reason,
    )
    desk.wake()
    return incident

"""The HTTP API under /api, described by OpenAPI at /api/openapi.json; JSON in, JSON out.

Invariant: whoever may not is refused before anything is read (`api_people`), and of incidents in
namespaces that are not theirs people are told nothing.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field, SecretStr

from tiphys.policies.lifecycle import IllegalMoveError, Move, State
from tiphys.policies.model import Incident, Noun
from tiphys.policies.people import PersonRole
from tiphys.service.api_people import (
    Admin,
    Approver,
    Caller,
    Doors,
    Operator,
    Stopper,
    Viewer,
    role_of,
)
from tiphys.service.approvals import Approvals
from tiphys.service.audit import Audit
from tiphys.service.catalogue_view import CatalogueEntry, catalogue_entries
from tiphys.service.database import AWAY, why_away
from tiphys.service.errors import (
    DatabaseAwayError,
    NoSuchIncidentError,
    NoSuchReviewError,
    NoSuchRunError,
    NotAllowedError,
    TiphysError,
    UsageError,
)
from tiphys.service.holds import Hold, Holds
from tiphys.service.incidents import Step
from tiphys.service.ledger import Ledger
from tiphys.service.people import may_over, namespace_of
from tiphys.service.records import Record
from tiphys.service.reviews import Review, Reviews
from tiphys.service.run_stops import RunStops
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.stopping import Stopping
from tiphys.service.undos import Undos
from tiphys.service.views import DeadLetter, IncidentView, Views
from tiphys.service.wishes import Wishes

log = structlog.get_logger()

_UNKNOWN = NoSuchIncidentError | NoSuchRunError | NoSuchReviewError
RETRY_AFTER_SECONDS = 5
_RETRY = {"Retry-After": str(RETRY_AFTER_SECONDS)}


@dataclass(frozen=True)
class Office:
    """What the API serves from."""

    views: Views
    ledger: Ledger
    approvals: Approvals
    audit: Audit
    holds: Holds
    run_stops: RunStops
    undos: Undos
    wishes: Wishes
    wake: Callable[[], None]
    """Called when a person has left work to be done."""
    stop: StopSwitch | None
    token: SecretStr | None
    doors: Doors = field(default_factory=Doors)
    """How people prove who they are."""


By = Annotated[str | None, Field(min_length=1, max_length=200)]
"""Who it is, where no people file says; where one does, it may be left out."""


class Decision(Noun):
    """Who decides, and why."""

    by: By = None
    reason: str = Field(default="", max_length=2000)
    digest: str = Field(default="", max_length=64, pattern="^[0-9a-f]*$")
    """The beginning of the digest of the plan that the person saw."""


class Consent(Decision):
    """Who approves, and why."""

    break_glass: bool = False
    """Alone, in an emergency: it counts for two, is announced and reviewed; a reason is needed."""


class Release(Noun):
    """Who lets Tiphys back, where, and why."""

    scope: str = Field(min_length=1, max_length=400)
    by: By = None
    reason: str = Field(min_length=1, max_length=2000)


class Undo(Noun):
    """Who has a run undone, and why."""

    by: By = None
    reason: str = Field(min_length=1, max_length=2000)


class StopWish(Decision):
    """Who stops everything new, why, and whether what runs shall stop and roll back as well."""

    runs: bool = False


class StopState(Noun):
    """The stop switch; `engaged` is null when nobody can say."""

    engaged: bool | None
    reason: str


class StopTaken(StopState):
    """What a person's stop has done."""

    incidents: tuple[str, ...] = ()
    """Those whose run has now been asked to stop and to roll back."""


def office(request: Request) -> Office:
    """Give the parts that `install` put there; to nobody on a route that names no role."""
    if role_of(request.scope.get("route")) is None:
        raise HTTPException(403, "this route names no role")
    desk: Office = request.app.state.office
    return desk


Desk = Annotated[Office, Depends(office)]
router = APIRouter(prefix="/api")


@router.get("/incidents")
async def list_incidents(
    desk: Desk,
    caller: Viewer,
    state: Annotated[list[State] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> list[Incident]:
    """List incidents, the newest first."""
    most = limit if caller.person is None else 10_000
    return caller.visible(await desk.views.incidents([s.value for s in state or []], most), limit)


@router.get("/incidents/{incident_id}")
async def show_incident(desk: Desk, caller: Viewer, incident_id: str) -> IncidentView:
    """Show one incident with its whole timeline."""
    view = await desk.views.incident(incident_id)
    caller.seen(view.incident)
    return view


@router.post("/incidents/{incident_id}/approve")
async def approve(desk: Desk, caller: Approver, incident_id: str, given: Consent) -> Incident:
    """Approve the plan that waits; its target is looked at again before anything starts."""
    person = caller.named(given.by)
    caller.seen(await desk.views.one(incident_id))
    incident = await desk.approvals.approve(
        incident_id,
        person=person,
        reason=given.reason,
        expected=given.digest,
        break_glass=given.break_glass,
    )
    desk.wake()
    return incident


@router.post("/incidents/{incident_id}/deny")
async def deny(desk: Desk, caller: Approver, incident_id: str, given: Decision) -> Incident:
    """Refuse the plan that waits; the incident is then in that person's hands."""
    person = caller.named(given.by)
    caller.seen(await desk.views.one(incident_id))
    return await desk.approvals.deny(
        incident_id, person=person, reason=given.reason, expected=given.digest
    )


@router.post("/incidents/{incident_id}/acknowledge")
async def acknowledge(desk: Desk, caller: Operator, incident_id: str, given: Decision) -> Incident:
    """Take an escalated incident into one's own hands."""
    by = caller.named(given.by).name
    async with desk.ledger.person(incident_id) as entry:
        caller.demand_over(PersonRole.OPERATOR, entry.incident)
        words = f"in the hands of {by}" + (f": {given.reason}" if given.reason else "")
        await entry.move(Step(Move.ACKNOWLEDGE, words, by, acknowledged_by=by))
        return entry.incident


@router.post("/incidents/{incident_id}/abort")
async def abort(desk: Desk, caller: Operator, incident_id: str, given: Decision) -> Incident:
    """Stop the incident's run: what it changed is rolled back, and a human goes on from there."""
    by = caller.named(given.by).name
    caller.demand_over(PersonRole.OPERATOR, await desk.views.one(incident_id))
    return await desk.run_stops.ask(incident_id, by=by, reason=given.reason)


@router.post("/runs/{run}/undo")
async def undo(desk: Desk, caller: Operator, run: str, wish: Undo) -> Incident:
    """Have a finished run undone, in an incident of its own; gate and approval as for any other."""
    incident = await desk.undos.ask(run, person=caller.named(wish.by), reason=wish.reason)
    desk.wake()
    return incident


@router.get("/approvals")
async def list_approvals(desk: Desk, caller: Viewer) -> list[IncidentView]:
    """List incidents whose plan waits for somebody."""
    return [view for view in await desk.views.waiting() if caller.sees(view.incident)]


@router.get("/catalogue")
async def list_catalogue(_desk: Desk, _caller: Viewer) -> list[CatalogueEntry]:
    """List every action that exists."""
    return catalogue_entries()


@router.get("/audit")
async def read_audit(
    desk: Desk,
    caller: Viewer,
    incident: str | None = None,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> list[Record]:
    """Read the record in order; all of it, those who may read of every namespace."""
    if incident is None:
        caller.demand(PersonRole.VIEWER, None)
    elif caller.person is not None:
        caller.seen(await desk.views.one(incident))
    return [r async for r in desk.audit.read(incident_id=incident, after=after, limit=limit)]


@router.get("/audit/export")
async def export_audit(desk: Desk, caller: Viewer) -> StreamingResponse:
    """Stream the whole record as JSON Lines, for `tiphys audit verify`."""
    caller.demand(PersonRole.VIEWER, None)
    await desk.ledger.database.ping()  # once the stream has begun, its status is said

    async def lines() -> AsyncGenerator[str]:
        async for record in desk.audit.read():
            yield record.model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/decisions/export")
async def export_decisions(desk: Desk, caller: Viewer) -> StreamingResponse:
    """Stream every decision that was judged as JSON Lines, for `tiphys policy diff`."""
    caller.demand(PersonRole.VIEWER, None)
    await desk.ledger.database.ping()  # once the stream has begun, its status is said

    async def lines() -> AsyncGenerator[str]:
        async for line in desk.views.decisions():
            yield line + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/dead-letters")
async def list_dead_letters(
    desk: Desk, caller: Viewer, limit: Annotated[int, Query(ge=1, le=10_000)] = 200
) -> list[DeadLetter]:
    """List messages that could not be understood, the newest first."""
    caller.demand(PersonRole.VIEWER, None)
    return await desk.views.dead_letters(limit)


@router.get("/holds")
async def list_holds(desk: Desk, caller: Viewer) -> list[Hold]:
    """List tripped breakers and frozen targets."""
    found = await desk.holds.all()
    return [hold for hold in found if await _may(desk, caller, PersonRole.VIEWER, hold)]


@router.post("/holds/release")
async def release_hold(desk: Desk, caller: Admin, release: Release) -> Hold:
    """Reset a breaker or unfreeze a target, with a reason."""
    by = caller.named(release.by)
    for hold in await desk.holds.all() if caller.person else ():
        if hold.scope == release.scope and not await _may(desk, caller, PersonRole.ADMIN, hold):
            raise NotAllowedError(f"{by.name} has not the role {PersonRole.ADMIN} there")
    return await desk.holds.release(release.scope, by=by.name, reason=release.reason)


async def _may(desk: Office, caller: Caller, role: PersonRole, hold: Hold) -> bool:
    """Tell whether somebody has a role where a hold is; everybody sees what holds a cluster."""
    if caller.person is None:
        return True
    if hold.incident_id is not None:
        incident = await desk.views.one(hold.incident_id)
        return may_over(caller.person, role, namespace_of(incident))
    kind, _, place = hold.scope.partition(":")
    if kind == "namespace":
        return caller.person.may(role, place.partition("/")[2])
    return role is PersonRole.VIEWER or caller.person.may_everywhere(role)


@router.get("/stop")
async def read_stop(desk: Desk, _caller: Viewer) -> StopState:
    """Tell whether the stop switch is engaged."""
    facts = await desk.stop.read() if desk.stop else None
    if facts is None:
        return StopState(engaged=None, reason="the stop namespace cannot be read")
    return StopState(engaged=facts.engaged, reason=facts.reason)


@router.post("/stop")
async def engage_stop(desk: Desk, caller: Stopper, wish: StopWish) -> StopTaken:
    """Stop everything new, in the API server itself; only a human's own credentials release it."""
    by = caller.named(wish.by).name
    if wish.runs:  # of everybody: one's own are stopped one by one
        caller.demand(PersonRole.OPERATOR, None)
    stopping = Stopping(desk.ledger, desk.stop, desk.run_stops)
    stopped = await stopping.stop(by=by, reason=wish.reason, runs=wish.runs)
    return StopTaken(engaged=True, reason=wish.reason, incidents=stopped.incidents)


@router.get("/reviews")
async def list_reviews(
    desk: Desk, caller: Viewer, *, closed: Annotated[bool, Query()] = False
) -> list[Review]:
    """List who broke the glass and nobody has looked at yet; with `closed` also the others."""
    found = await Reviews(desk.ledger).all(closed=closed)
    person = caller.person
    return [one for one in found if person is None or person.may(PersonRole.VIEWER, one.namespace)]


@router.post("/reviews/{plan_digest}/close")
async def close_review(desk: Desk, caller: Approver, plan_digest: str, given: Undo) -> Review:
    """Say that one has looked at who broke the glass; nobody closes their own."""
    person = caller.named(given.by)
    return await Reviews(desk.ledger).close(plan_digest, person=person, reason=given.reason)


def install(app: FastAPI, desk: Office) -> None:
    """Mount the API on an application."""
    app.state.office = desk
    app.include_router(router)

    @app.exception_handler(IllegalMoveError)
    async def too_late(_request: Request, error: IllegalMoveError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(TiphysError)
    async def refuse(_request: Request, error: TiphysError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        status = 404 if isinstance(error, _UNKNOWN) else 409
        status = 403 if isinstance(error, NotAllowedError) else status
        if not isinstance(error, UsageError):
            status = 503 if error.retryable else 502
        return JSONResponse({"detail": str(error)}, status, _RETRY if status == 503 else None)

    async def away(request: Request, error: Exception) -> JSONResponse:
        log.warning("the database does not answer", path=request.url.path, error=why_away(error))
        return await refuse(request, DatabaseAwayError(_advice(request.method, error)))

    for kind in AWAY:
        app.add_exception_handler(kind, away)


def _advice(method: str, error: Exception) -> str:
    """Say what the person who asked can do now."""
    asked = "" if method == "GET" else "; look first whether this was done"
    return (
        f"{why_away(error)}. Alerts are still taken and running workflows still roll back, but "
        f"nothing new is decided. Try again in {RETRY_AFTER_SECONDS} s{asked}"
    )

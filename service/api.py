"""The HTTP API under /api, described by OpenAPI at /api/openapi.json; JSON in, JSON out.

Invariant: whoever may not is refused before anything is read: off loopback every call bears the
token, on loopback without a token only requests that name this host are answered, so that a web
page elsewhere cannot reach us through somebody's browser.
"""

import hmac
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field, SecretStr

from tiphys.policies.lifecycle import IllegalMoveError, Move, State
from tiphys.policies.model import Incident, Noun
from tiphys.service.approvals import Approvals
from tiphys.service.audit import Audit
from tiphys.service.database import AWAY, why_away
from tiphys.service.errors import (
    DatabaseAwayError,
    NoSuchIncidentError,
    NoSuchRunError,
    TiphysError,
    UsageError,
)
from tiphys.service.holds import Hold, Holds
from tiphys.service.incidents import Step
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent, Record
from tiphys.service.run_stops import RunStops
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.undos import Undos
from tiphys.service.views import DeadLetter, IncidentView, Views
from tiphys.workflow_templates import catalogue
from tiphys.workflow_templates.action import Scope

log = structlog.get_logger()

_HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)
"""The Host header of a request that was meant for this machine."""
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
    wake: Callable[[], None]
    """Called when a person has left work to be done."""
    stop: StopSwitch | None
    token: SecretStr | None


class Person(Noun):
    """Who decides, and why."""

    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(default="", max_length=2000)
    digest: str = Field(default="", max_length=64, pattern="^[0-9a-f]*$")
    """The beginning of the digest of the plan that the person saw."""


class Release(Noun):
    """Who lets Tiphys back, where, and why."""

    scope: str = Field(min_length=1, max_length=400)
    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=2000)


class Undo(Noun):
    """Who has a run undone, and why."""

    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=2000)


class CatalogueEntry(Noun):
    """One action that exists."""

    name: str
    version: int
    summary: str
    kinds: tuple[str, ...]
    reversible: bool
    always_ask: str
    """Why each use needs a person's approval, whatever the policy grants; empty: it does not."""
    undo: str
    parameters: dict[str, object]
    rights: tuple[str, ...]


class StopState(Noun):
    """The stop switch; `engaged` is null when nobody can say."""

    engaged: bool | None
    reason: str


def catalogue_entries() -> list[CatalogueEntry]:
    """Describe every action."""
    return [
        CatalogueEntry(
            name=action.name,
            version=action.version,
            summary=action.summary,
            kinds=tuple(f"{version} {kind}" for version, kind in action.kinds),
            reversible=action.reversible,
            always_ask=action.always_ask,
            undo=action.undo,
            parameters=action.parameters.model_json_schema(),
            rights=tuple(
                f"{', '.join(r.verbs)} {r.resource}{'.' + r.api_group if r.api_group else ''}"
                f"{' in the whole cluster' if r.scope is Scope.CLUSTER else ''}"
                for r in action.rights
            ),
        )
        for action in catalogue.every()
    ]


def office(request: Request) -> Office:
    """Give the parts that `install` put there, to those who may."""
    desk: Office = request.app.state.office
    if desk.token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.encode(), desk.token.get_secret_value().encode())
        if scheme.lower() != "bearer" or not same:
            raise HTTPException(401, "this needs the API token as a bearer token")
    # The header itself: the framework's URL names our own address where it makes no sense of it.
    elif not _HERE.fullmatch(request.headers.get("host", "")):
        raise HTTPException(403, "without an API token only requests to localhost are answered")
    return desk


Desk = Annotated[Office, Depends(office)]
router = APIRouter(prefix="/api")


@router.get("/incidents")
async def list_incidents(
    desk: Desk,
    state: Annotated[list[State] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> list[Incident]:
    """List incidents, the newest first."""
    return await desk.views.incidents([s.value for s in state or []], limit)


@router.get("/incidents/{incident_id}")
async def show_incident(desk: Desk, incident_id: str) -> IncidentView:
    """Show one incident with its whole timeline."""
    return await desk.views.incident(incident_id)


@router.post("/incidents/{incident_id}/approve")
async def approve(desk: Desk, incident_id: str, person: Person) -> Incident:
    """Approve the plan that waits; its target is looked at again before anything starts."""
    incident = await desk.approvals.approve(
        incident_id, by=person.by, reason=person.reason, expected=person.digest
    )
    desk.wake()
    return incident


@router.post("/incidents/{incident_id}/deny")
async def deny(desk: Desk, incident_id: str, person: Person) -> Incident:
    """Refuse the plan that waits; the incident is then in that person's hands."""
    return await desk.approvals.deny(
        incident_id, by=person.by, reason=person.reason, expected=person.digest
    )


@router.post("/incidents/{incident_id}/acknowledge")
async def acknowledge(desk: Desk, incident_id: str, person: Person) -> Incident:
    """Take an escalated incident into one's own hands."""
    async with desk.ledger.person(incident_id) as entry:
        words = f"in the hands of {person.by}" + (f": {person.reason}" if person.reason else "")
        await entry.move(Step(Move.ACKNOWLEDGE, words, person.by, acknowledged_by=person.by))
        return entry.incident


@router.post("/incidents/{incident_id}/abort")
async def abort(desk: Desk, incident_id: str, person: Person) -> Incident:
    """Stop the incident's run: what it changed is rolled back, and a human goes on from there."""
    return await desk.run_stops.ask(incident_id, by=person.by, reason=person.reason)


@router.post("/runs/{run}/undo")
async def undo(desk: Desk, run: str, wish: Undo) -> Incident:
    """Have a finished run undone, in an incident of its own; gate and approval as for any other."""
    incident = await desk.undos.ask(run, by=wish.by, reason=wish.reason)
    desk.wake()
    return incident


@router.get("/approvals")
async def list_approvals(desk: Desk) -> list[IncidentView]:
    """List incidents whose plan waits for somebody."""
    return await desk.views.waiting()


@router.get("/catalogue")
async def list_catalogue(_desk: Desk) -> list[CatalogueEntry]:
    """List every action that exists."""
    return catalogue_entries()


@router.get("/audit")
async def read_audit(
    desk: Desk,
    incident: str | None = None,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> list[Record]:
    """Read the record in order."""
    return [r async for r in desk.audit.read(incident_id=incident, after=after, limit=limit)]


@router.get("/audit/export")
async def export_audit(desk: Desk) -> StreamingResponse:
    """Stream the whole record as JSON Lines, for `tiphys audit verify`."""
    await desk.ledger.database.ping()  # once the stream has begun, its status is said

    async def lines() -> AsyncGenerator[str]:
        async for record in desk.audit.read():
            yield record.model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/decisions/export")
async def export_decisions(desk: Desk) -> StreamingResponse:
    """Stream every decision that was judged as JSON Lines, for `tiphys policy diff`."""
    await desk.ledger.database.ping()  # once the stream has begun, its status is said

    async def lines() -> AsyncGenerator[str]:
        async for line in desk.views.decisions():
            yield line + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/dead-letters")
async def list_dead_letters(
    desk: Desk, limit: Annotated[int, Query(ge=1, le=10_000)] = 200
) -> list[DeadLetter]:
    """List messages that could not be understood, the newest first."""
    return await desk.views.dead_letters(limit)


@router.get("/holds")
async def list_holds(desk: Desk) -> list[Hold]:
    """List tripped breakers and frozen targets."""
    return await desk.holds.all()


@router.post("/holds/release")
async def release_hold(desk: Desk, release: Release) -> Hold:
    """Reset a breaker or unfreeze a target, with a reason."""
    return await desk.holds.release(release.scope, by=release.by, reason=release.reason)


@router.get("/stop")
async def read_stop(desk: Desk) -> StopState:
    """Tell whether the stop switch is engaged."""
    facts = await desk.stop.read() if desk.stop else None
    if facts is None:
        return StopState(engaged=None, reason="the stop namespace cannot be read")
    return StopState(engaged=facts.engaged, reason=facts.reason)


@router.post("/stop")
async def engage_stop(desk: Desk, person: Person) -> StopState:
    """Stop everything new, in the API server itself; only a human's own credentials release it."""
    if desk.stop is None:
        raise UsageError("no credentials for the stop namespace are configured")
    name = await desk.stop.engage(by=person.by, reason=person.reason, now=desk.ledger.clock())
    body = {"config_map": name, "reason": person.reason}
    try:
        async with desk.ledger.database.transaction() as tx:
            await desk.audit.append(tx, AuditEvent.STOP_ENGAGED, actor=person.by, body=body)
    except AWAY as error:
        raise DatabaseAwayError(
            f"{why_away(error)}. All the same everything new is stopped, by ConfigMap {name}; "
            "ask again when the database is back, so that the record says who did it"
        ) from error
    return StopState(engaged=True, reason=person.reason)


def install(app: FastAPI, desk: Office) -> None:
    """Mount the API on an application."""
    app.state.office = desk
    app.include_router(router)

    @app.exception_handler(IllegalMoveError)
    async def too_late(_request: Request, error: IllegalMoveError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(TiphysError)
    async def refuse(_request: Request, error: TiphysError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        status = 404 if isinstance(error, NoSuchIncidentError | NoSuchRunError) else 409
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

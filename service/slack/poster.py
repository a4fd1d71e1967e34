"""Keeps every card true: posts it when an incident needs a human, then follows the record.

Driven by the database alone, so whoever moved an incident, through whatever channel, the card says
it. Invariants: an incident has one card, whatever dies or is repeated; Slack's trouble delays cards
and nothing else, and what it asks for in Retry-After is obeyed.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from pydantic import ValidationError

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Instant
from tiphys.service.database import AWAY, why_away
from tiphys.service.errors import TiphysError, UsageError
from tiphys.service.records import AuditEvent, Record
from tiphys.service.slack import blocks
from tiphys.service.slack.card import Card, card, plain_card, rest_of
from tiphys.service.slack.cards import Cards, Held
from tiphys.service.slack.escaping import name, shown, spoken
from tiphys.service.slack.workspace import (
    SlackAwayError,
    SlackLimitedError,
    SlackRefusedError,
    Workspace,
)
from tiphys.service.telling import sentence
from tiphys.service.views import IncidentView, Views

POLL_SECONDS: Final = 0.5
MOST_PATIENCE: Final = 60.0
_NEEDS_HUMAN: Final = {State.AWAITING_APPROVAL, State.ESCALATED}
_GONE: Final = {"message_not_found", "cant_update_message", "edit_window_closed"}
_TOLD: Final = {
    AuditEvent.APPROVAL_GIVEN,
    AuditEvent.APPROVAL_REFUSED,
    AuditEvent.APPROVAL_VOID,
    AuditEvent.BREAK_GLASS,
    AuditEvent.BREAK_GLASS_REVIEWED,
    AuditEvent.RUN_ASKED,
    AuditEvent.RUN_ENDED,
    AuditEvent.RUN_STOP_ASKED,
    AuditEvent.TARGET_FROZEN,
    AuditEvent.TARGET_UNFROZEN,
    AuditEvent.UNDO_ASKED,
    AuditEvent.WORKFLOW_CREATED,
}
"""What a thread is told, beside the moves that end somebody's turn."""
_MOVES: Final = {State.ACKNOWLEDGED, State.CLOSED, State.ESCALATED}

log = structlog.get_logger()


class Poster:
    """One process' share of the work on cards; several may run."""

    def __init__(
        self, views: Views, cards: Cards, workspace: Workspace, clock: Callable[[], Instant]
    ) -> None:
        self._views = views
        self._cards = cards
        self._workspace = workspace
        self._clock = clock
        self._woken = asyncio.Event()
        self._pending: set[str] = set()
        self._seen: int | None = None
        self._not_before = 0.0
        self._patience = 1.0
        self.trouble = ""
        """Why cards are not kept true now; empty while they are."""

    def wake(self) -> None:
        """Look now instead of at the next poll."""
        self._woken.set()

    def check(self) -> None:
        """Raise an error where cards are not kept true."""
        if self.trouble:
            raise TiphysError(self.trouble)

    async def run(self) -> None:
        """Keep cards true until cancelled."""
        while True:
            try:
                await self.round()
            except AWAY as error:
                log.warning("cards wait for the database", error=why_away(error))
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()

    async def round(self) -> None:
        """Look once at everything that has moved."""
        if self._seen is None:
            found, self._seen = await self._cards.unfinished()
        else:
            found, self._seen = await self._cards.moved(self._seen)
        self._pending |= found
        for incident in sorted(self._pending):
            if time.monotonic() < self._not_before:
                return
            try:
                done = await self._follow(incident)
            except SlackLimitedError as error:
                self._rest(error.seconds, str(error))
            except (SlackAwayError, SlackRefusedError) as error:
                self._rest(self._patience, str(error))
                self._patience = min(self._patience * 2, MOST_PATIENCE)
            except (ValidationError, UsageError) as error:
                log.error("a card cannot follow its incident", incident=incident, error=str(error))
                self._pending.discard(incident)
            else:
                self._patience, self.trouble = 1.0, ""
                if done:
                    self._pending.discard(incident)

    def _rest(self, seconds: float, why: str) -> None:
        self._not_before = time.monotonic() + seconds
        if self.trouble != why:
            log.warning("cards wait for Slack", why=why, seconds=seconds)
        self.trouble = why

    async def _follow(self, incident: str) -> bool:
        """Bring one card up to date; False: another replica is at it, look again."""
        known = await self._cards.exists(incident)
        if not known and not wanted(await self._views.incident(incident)):
            return True
        held = await self._cards.claim(incident, self._clock())
        if held is None:
            return False
        try:
            view = await self._views.incident(incident)
            after = await self._show(held, view)
            return after is not None and await self._cards.save(after, over=_over(after, view))
        finally:
            await self._cards.release(held)

    async def _show(self, held: Held, view: IncidentView) -> Held | None:
        made = drawn(view)
        last = view.timeline[-1].seq if view.timeline else 0
        if held.ts is None:
            ts = await self._post(held, made)
            return replace(held, ts=ts, shown=made.fingerprint, told=last) if ts else None
        if made.fingerprint != held.shown:
            try:
                await self._draw(held.channel, held.ts, made, view)
            except SlackRefusedError as error:
                if error.word not in _GONE:
                    raise
                # Somebody deleted it: the incident still needs one.
                return await self._show(replace(held, ts=None, posting_at=None), view)
        news = [r for r in view.timeline if r.seq > held.told and _tells(r)]
        if news:
            text, said = thread(view, news)
            await self._workspace.reply(held.channel, held.ts, text, said)
        return replace(held, shown=made.fingerprint, told=last)

    async def _draw(self, channel: str, ts: str, made: Card, view: IncidentView) -> None:
        try:
            await self._workspace.update(channel, ts, made)
        except SlackRefusedError as error:
            if error.word != "invalid_blocks":
                raise
            log.error("Slack refused a card", incident=view.incident.id, why=str(error))
            await self._workspace.update(channel, ts, plain_card(view))

    async def _post(self, held: Held, made: Card) -> str | None:
        """Post a card once: what may be out already is looked for first."""
        if held.posting_at is not None:
            found = await self._recover(held, held.posting_at)
            if found:
                return found
        begun = await self._cards.posting(held, self._clock())
        if begun is None:
            return None
        try:
            return await self._workspace.post(held.channel, made, held.incident_id)
        except (SlackLimitedError, SlackRefusedError):
            await self._cards.posting(held, None)  # it is certainly not out
            raise

    async def _recover(self, held: Held, since: Instant) -> str | None:
        try:
            # Slack's clock names messages, ours the beginning: a minute between them is a lot.
            start = since.timestamp() - 60
            return await self._workspace.find(held.channel, held.incident_id, start)
        except SlackRefusedError as error:
            log.warning("a card may be posted twice", incident=held.incident_id, why=str(error))
            return None


def wanted(view: IncidentView) -> bool:
    """Whether an incident needs a card: a human must look, or a run has ended."""
    ended = any(attempt.run and attempt.run["outcome"] for attempt in view.attempts)
    return view.incident.state in _NEEDS_HUMAN or ended


def drawn(view: IncidentView) -> Card:
    """Draw a card, a plain one where the record holds what this version does not know."""
    try:
        return card(view)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.error("a card cannot be drawn", incident=view.incident.id, error=repr(error))
        return plain_card(view)


def thread(view: IncidentView, news: list[Record]) -> tuple[str, list[blocks.Block]]:
    """Say what happened since, oldest first."""
    found = [
        f"• {shown(record.event.replace('_', ' '), 60)}: "
        f"{shown(sentence(record.model_dump()), 500)} ({name(record.actor, 100)})"
        for record in news
    ]
    said = blocks.lines(f"{view.incident.id} since", found, more=rest_of(view))
    text = spoken(f"{view.incident.id}: {view.incident.reason}", 600)
    return text, [blocks.section(said)]


def _tells(record: Record) -> bool:
    if record.event == AuditEvent.INCIDENT_MOVED:
        return isinstance(record.body, dict) and record.body.get("to") in _MOVES
    return record.event in _TOLD


def _over(held: Held, view: IncidentView) -> bool:
    """Whether a card will not change any more, until the record speaks of its incident again."""
    return held.ts is not None and view.incident.state == State.CLOSED

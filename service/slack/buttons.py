"""The buttons of a card: approve, deny, break the glass, explain, undo, take over; by people.

Invariants: a decision is bound to the whole digest that the card bore, so a late click on an
earlier plan decides nothing; what the person may is decided where every channel's decisions are.
"""

import json
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final

from tiphys.policies.lifecycle import Move
from tiphys.policies.model import Incident
from tiphys.policies.people import Person, PersonRole
from tiphys.service.api import Office
from tiphys.service.errors import NotApprovableError, UsageError, WorldRefusedError
from tiphys.service.incidents import Step
from tiphys.service.people import demand, namespace_of
from tiphys.service.slack import blocks
from tiphys.service.slack.attempts import Attempt, Attempts
from tiphys.service.slack.card import Button, rest_of
from tiphys.service.slack.escaping import shown, spoken
from tiphys.service.slack.workspace import Workspace
from tiphys.service.views import IncidentView

_INCIDENT: Final = re.compile(r"inc-[a-z0-9]{4,20}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ALONE: Final = (
    "You approve this plan alone, without a second person, also where you proposed it. "
    "Everybody is paged about it at once, and somebody else reviews it."
)
_FORMS: Final = {
    Button.BREAK_GLASS: (
        "Break the glass",
        "Approve alone",
        _ALONE,
    ),
    Button.DENY: ("Deny this plan", "Deny", ""),
    Button.UNDO: ("Undo this run", "Undo", ""),
}
"""Title, button and warning of each form that asks for a reason."""


@dataclass(frozen=True)
class Click:
    """One click, as Slack tells of it."""

    user: str
    channel: str
    trigger: str
    incident: str
    bound: str

    @classmethod
    def of(cls, body: dict[str, Any]) -> "Click":
        """Read a click on a button."""
        incident, _, bound = str(body["actions"][0].get("value", "")).partition(":")
        return cls(
            user=str(body["user"]["id"]),
            channel=str((body.get("channel") or {}).get("id", "")),
            trigger=str(body.get("trigger_id", "")),
            incident=incident,
            bound=bound,
        )

    @classmethod
    def of_form(cls, body: dict[str, Any]) -> tuple["Click", str]:
        """Read a form that was sent, and the reason in it."""
        view = body["view"]
        kept = json.loads(view["private_metadata"])
        given = view["state"]["values"]["reason"]["reason"].get("value") or ""
        click = cls(
            user=str(body["user"]["id"]),
            channel=str(kept["channel"]),
            trigger=str(body.get("trigger_id", "")),
            incident=str(kept["incident"]),
            bound=str(kept["bound"]),
        )
        return click, str(given).strip()[:2000]

    def kept(self) -> str:
        """Write what a form must bring back."""
        whole = {"channel": self.channel, "incident": self.incident, "bound": self.bound}
        return json.dumps(whole)

    @property
    def digest(self) -> str:
        """Give the digest it is bound to; raises `NotApprovableError` where that is none."""
        if not _INCIDENT.fullmatch(self.incident) or not _DIGEST.fullmatch(self.bound):
            raise NotApprovableError("this button is bound to no plan; use the card's own")
        return self.bound


class Buttons:
    """What each does."""

    def __init__(self, office: Office, attempts: Attempts, workspace: Workspace) -> None:
        self._office = office
        self._attempts = attempts
        self._workspace = workspace

    async def approve(self, click: Click) -> None:
        """Approve the plan that the card shows."""

        async def work(person: Person) -> str:
            found = await self._office.approvals.approve(
                click.incident, person=person, reason="", expected=click.digest
            )
            self._office.wake()
            return f"{found.id}: {found.reason}"

        await self._try(click, "approve", work)

    async def break_glass(self, click: Click, reason: str) -> None:
        """Approve it alone, for a reason that somebody else reviews."""

        async def work(person: Person) -> str:
            found = await self._office.approvals.approve(
                click.incident,
                person=person,
                reason=reason,
                expected=click.digest,
                break_glass=True,
            )
            self._office.wake()
            return f"{found.id}: {found.reason}. Everybody is told, and somebody else reviews it."

        await self._try(click, "break_glass", work)

    async def deny(self, click: Click, reason: str) -> None:
        """Deny it, for a reason."""

        async def work(person: Person) -> str:
            found = await self._office.approvals.deny(
                click.incident, person=person, reason=reason, expected=click.digest
            )
            return f"{found.id}: {found.reason}. It is in your hands now."

        await self._try(click, "deny", work)

    async def undo(self, click: Click, reason: str) -> None:
        """Have the run undone that the card shows."""

        async def work(person: Person) -> str:
            view = await self._office.views.incident(click.incident)
            if click.bound not in {attempt.workflow for attempt in view.attempts}:
                raise UsageError(f"{click.incident} has no such run")
            asking = self._office.undos.ask(click.bound, person=person, reason=reason)
            return await promised(self._office, asking)

        await self._try(click, "undo", work)

    async def acknowledge(self, click: Click) -> None:
        """Take an escalated incident into one's own hands."""

        async def work(person: Person) -> str:
            async with self._office.ledger.person(click.incident) as entry:
                demand(person, PersonRole.OPERATOR, namespace_of(entry.incident))
                by = person.name
                words = f"in the hands of {by}"
                await entry.move(Step(Move.ACKNOWLEDGE, words, by, acknowledged_by=by))
            return f"{click.incident} is in your hands."

        await self._try(click, "acknowledge", work)

    async def explain(self, click: Click) -> None:
        """Show one person every rule and what it said."""
        found: list[blocks.Block] = []

        async def work(person: Person) -> str:
            view = await self._office.views.incident(click.incident)
            demand(person, PersonRole.VIEWER, namespace_of(view.incident))
            found.append(blocks.section(explanation(view)))
            return f"{click.incident}: what each rule said"

        await self._try(click, "explain", work, found, decision=False)

    async def ask_why(self, click: Click, button: Button) -> None:
        """Open the form that asks for a reason; only for whom we know."""
        if self._attempts.person(click.user) is None:
            await self._try(click, button.removeprefix("tiphys_"), _nothing)
            return
        title, submit, warning = _FORMS[button]
        form = blocks.reason_modal(button, title, submit, click.kept(), warning)
        try:
            await self._workspace.open_view(click.trigger, form)
        except WorldRefusedError as error:
            said = f"Slack did not open the form, nothing was done; click again ({error})"
            words = [blocks.section(shown(said))]
            await self._workspace.whisper(click.channel, click.user, spoken(said), words)

    async def _try(
        self,
        click: Click,
        what: str,
        work: Any,
        more: list[blocks.Block] | None = None,
        *,
        decision: bool = True,
    ) -> None:
        attempt = Attempt(click.user, what, click.incident, click.bound, decision)
        said = await self._attempts.make(attempt, work)
        shown_blocks = more or [blocks.section(shown(said, 2900))]
        await self._workspace.whisper(click.channel, click.user, spoken(said, 2900), shown_blocks)


async def promised(office: Office, asking: Awaitable[Incident]) -> str:
    """Have what a person wants taken, and say what will become of it."""
    found = await asking
    office.wake()
    return f"{found.id}: {found.title}. It goes through the same gate and approval."


async def _nothing(_person: Person) -> str:
    return ""


def explanation(view: IncidentView) -> str:
    """Say what every rule of the gate answered to the last attempt."""
    last = view.attempts[-1] if view.attempts else None
    judgement = last.judgement if last else None
    if not judgement:
        return f"{view.incident.id}: no rule has judged anything yet."
    found = [
        f"• {shown(v['rule'], 100)}: {shown(v['verdict']['verdict'].replace('_', ' '), 40)}"
        + (f": {shown(v['verdict']['reason'], 400)}" if v["verdict"].get("reason") else "")
        for v in sorted(judgement["verdicts"], key=lambda v: v["verdict"]["verdict"] == "allowed")
    ]
    head = f"{view.incident.id}, policy {shown(judgement['policy'], 120)}"
    return blocks.lines(head, found, more=rest_of(view))

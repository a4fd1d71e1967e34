"""The command `/tiphys`: what people ask and order in chat, answered to them alone.

Invariants: each word does what the same command of `tiphys` does, through the same parts; whoever
may not gets a sentence; `stop` asks nothing back, because it is the emergency.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.policies.lifecycle import State
from tiphys.policies.people import Person, PersonRole
from tiphys.service.answers import Answer, answer
from tiphys.service.api import Office
from tiphys.service.errors import NotAllowedError, UsageError
from tiphys.service.pauses import Pauses
from tiphys.service.people import demand, may_over, namespace_of
from tiphys.service.slack import blocks
from tiphys.service.slack.attempts import Attempt, Attempts
from tiphys.service.slack.blocks import Block
from tiphys.service.slack.card import rest_of
from tiphys.service.slack.escaping import name, shown, spoken
from tiphys.service.slack.orders import Orders
from tiphys.service.slack.poster import drawn
from tiphys.service.slack.workspace import Workspace

COMMAND: Final = "/tiphys"
MOST_LISTED: Final = 25


@dataclass(frozen=True)
class Typed:
    """One command as somebody typed it."""

    user: str
    text: str
    response_url: str


@dataclass(frozen=True)
class Said:
    """What they are told."""

    text: str
    blocks: list[Block]


def said(text: str) -> Said:
    """Say one paragraph."""
    return Said(spoken(text, 2900), [blocks.section(shown(text, 2900))])


Work = Callable[[Person, str], Awaitable[Said]]


def _saying(order: Callable[[Person, str], Awaitable[str]]) -> Work:
    async def work(person: Person, rest: str) -> Said:
        return said(await order(person, rest))

    return work


class Commands:
    """Every word of the command."""

    def __init__(self, office: Office, attempts: Attempts, workspace: Workspace) -> None:
        self._office = office
        self._attempts = attempts
        self._workspace = workspace
        orders = Orders(office, attempts)
        self._words: Mapping[str, tuple[Work, str, bool]] = {
            "status": (
                self._status,
                "status: what is open, and whether anything is stopped",
                False,
            ),
            "incident": (self._incident, "incident ID: one incident's card", False),
            "ask": (self._ask, "ask ID QUESTION: what the evidence says of it", False),
            "run": (
                _saying(orders.run),
                "run ACTION TARGET [NAME=VALUE...] REASON: have an action done",
                True,
            ),
            "undo": (_saying(orders.undo), "undo RUN REASON: have a finished run undone", True),
            "pause": (_saying(orders.pause), "pause [SCOPE] [TIME]: nothing new, a while", True),
            "resume": (_saying(orders.resume), "resume [SCOPE]: end a pause", True),
            "stop": (_saying(orders.stop), "stop [--runs] [REASON]: nothing new, at once", True),
        }

    async def run(self, typed: Typed) -> None:
        """Do what was typed and tell its author."""
        word, _, rest = typed.text.strip().partition(" ")
        known = self._words.get(word.lower())
        found: list[Said] = []
        if known is None:
            answer_to = said(self._help(word))
        else:
            work, _, decision = known

            async def do(person: Person) -> str:
                found.append(await work(person, rest.strip()))
                return ""

            attempt = Attempt(typed.user, word.lower(), _first(rest), "", decision)
            problem = await self._attempts.make(attempt, do)
            answer_to = said(problem) if problem else found[0]
        await self._workspace.respond(typed.response_url, answer_to.text, answer_to.blocks)

    def _help(self, word: str) -> str:
        lines = [f"{COMMAND} {line}" for _, line, _ in self._words.values()]
        unknown = f"There is no {word!r}. " if word and word != "help" else ""
        return unknown + " · ".join((*lines, f"{COMMAND} help"))

    # --- asking ---------------------------------------------------------------------------------

    async def _status(self, person: Person, _rest: str) -> Said:
        if not person.may(PersonRole.VIEWER):
            raise NotAllowedError(f"{person.name} has not the role viewer anywhere")
        states = [state.value for state in State if state != State.CLOSED]
        found = [
            incident
            for incident in await self._office.views.incidents(states, 1000)
            if may_over(person, PersonRole.VIEWER, namespace_of(incident))
        ]
        counts = Counter(incident.state for incident in found)
        head = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in counts.items())
        lines = [
            f"• {one.id} {one.state.replace('_', ' ')}, {one.severity}: {shown(one.title, 150)}"
            for one in found[:MOST_LISTED]
        ]
        if len(found) > MOST_LISTED:
            lines.append(f"…and {len(found) - MOST_LISTED} more: tiphys incidents list")
        lines += [
            f"• paused: {shown(one.scope, 100)} until {one.until:%H:%M:%S} UTC by "
            f"{name(one.by, 100)} {shown(one.reason, 200)}".rstrip()
            for one in await Pauses(self._office.ledger).all()
        ]
        words = f"{len(found)} open incidents{': ' if head else ''}{head}. {await self._stopped()}"
        text = blocks.lines(shown(words, 600), lines, more="tiphys incidents list")
        return Said(spoken(words, 600), [blocks.section(text)])

    async def _stopped(self) -> str:
        facts = await self._office.stop.read() if self._office.stop else None
        if facts is None:
            return "Nobody can say whether the stop is engaged."
        return f"Stopped: {facts.reason}." if facts.engaged else "The stop is not engaged."

    async def _incident(self, person: Person, rest: str) -> Said:
        view = await self._office.views.incident(_needed(rest, "incident ID"))
        demand(person, PersonRole.VIEWER, namespace_of(view.incident))
        made = drawn(view)
        # A copy of a card does not change with its incident: it has no buttons that could be late.
        return Said(made.text, [b for b in made.blocks if b["type"] != "actions"])

    async def _ask(self, person: Person, rest: str) -> Said:
        incident, _, question = rest.partition(" ")
        view = await self._office.views.incident(_needed(incident, "ask ID QUESTION"))
        demand(person, PersonRole.VIEWER, namespace_of(view.incident))
        found = answer(view.evidence, _needed(question.strip(), "ask ID QUESTION"))
        return Said(spoken(found.nothing, 600), [blocks.section(told(found, rest_of(view)))])


def told(found: Answer, more: str) -> str:
    """Say an answer with its citations, or that there is none."""
    if not found.found:
        return f"{found.nothing} Everything that was gathered: {more}"
    lines = [
        f"• {shown(one.sentence, 420)} [{shown(one.evidence, 40)}, {one.source}: "
        f"{shown(one.question, 150)}]"
        for one in found.found
    ]
    return blocks.lines(f"On: {shown(found.question, 300)}", lines, more=more)


def _needed(word: str, usage: str) -> str:
    if not word:
        raise UsageError(f"it is: {usage}")
    return word


def _first(rest: str) -> str:
    return rest.strip().partition(" ")[0]

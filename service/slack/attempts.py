"""What a person tries in Slack: who they are, what came of it, and what they alone are told.

Invariants: whoever is not in the people file, or lacks the role, gets a sentence and nothing
happens; a decision that was tried and refused is in the record; nobody tries faster than `Pace`.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from tiphys.policies.lifecycle import IllegalMoveError
from tiphys.policies.people import Person
from tiphys.service.database import AWAY, Transaction, why_away
from tiphys.service.errors import NoSuchIncidentError, TiphysError, UsageError, WorldRefusedError
from tiphys.service.ledger import Ledger
from tiphys.service.people import People
from tiphys.service.records import AuditEvent

CHANNEL: Final = "slack"
"""What Slack's user ids stand under in the people file."""
BURST: Final = 10
SECONDS_EACH: Final = 3.0
_REMEMBERED: Final = 10_000

log = structlog.get_logger()


@dataclass
class Pace:
    """How often each user may try something: `BURST` at once, then one in `SECONDS_EACH`."""

    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allows(self, user: str) -> bool:
        """Take one try of a user's, if there is one."""
        now = self.clock()
        left, since = self._left.pop(user, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / SECONDS_EACH)
        self._left[user] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _REMEMBERED:
            del self._left[next(iter(self._left))]
        return left >= 1


@dataclass(frozen=True)
class Attempt:
    """One try."""

    user: str
    """Slack's id of whoever tries."""
    what: str
    incident: str = ""
    bound: str = ""
    """The digest or the run that they had before them."""
    decision: bool = True
    """Whether it would change something, so that its refusal is recorded."""


class Attempts:
    """Lets people try, and says what came of it."""

    def __init__(self, people: People, ledger: Ledger, pace: Pace | None = None) -> None:
        self._people = people
        self._ledger = ledger
        self._pace = pace or Pace()

    def person(self, user: str) -> Person | None:
        """Give who a Slack user is."""
        return self._people.of_identity(CHANNEL, user)

    def may_stop(self, user: str) -> bool:
        """Whether they may engage the stop, which no pace keeps anybody from."""
        person = self.person(user)
        return person is not None and self.stops(person)

    def stops(self, person: Person) -> bool:
        """Whether somebody may engage the stop."""
        return self._people.may_stop(person)

    async def make(self, attempt: Attempt, work: Callable[[Person], Awaitable[str]]) -> str:
        """Do it and give the sentence for whoever tried; raises nothing that is foreseen."""
        if not self._pace.allows(attempt.user):
            stops = attempt.what == "stop" and self.may_stop(attempt.user)
            if not stops:
                return "Nothing was done: too many tries at once. Wait a little."
        person = self.person(attempt.user)
        try:
            if person is None:
                raise UsageError(
                    f"Tiphys does not know you. An admin adds your Slack user id, {attempt.user}, "
                    "to the people file"
                )
            return await work(person)
        except (UsageError, IllegalMoveError) as error:
            if attempt.decision:
                await self._record(attempt, person, str(error))
            return f"Nothing was done: {error}"
        except WorldRefusedError as error:
            return f"It could not be done: {error}"
        except AWAY as error:
            why = why_away(error)
            log.warning("the database does not answer", what=attempt.what, error=why)
            return f"It could not be done: the database does not answer ({why}). Look, then again."

    async def _record(self, attempt: Attempt, person: Person | None, why: str) -> None:
        body = {
            "channel": CHANNEL,
            "identity": attempt.user,
            "what": attempt.what,
            "bound": attempt.bound,
            "reason": why,
        }
        actor = person.name if person else f"{CHANNEL}:{attempt.user}"
        try:
            async with self._ledger.database.transaction() as tx:
                incident = await self._known(tx, attempt.incident)
                event = AuditEvent.CHAT_REFUSED
                await self._ledger.audit.append(
                    tx, event, actor=actor, incident_id=incident, body=body
                )
        except (*AWAY, TiphysError) as error:
            log.error("a refused attempt is not in the record", why=why_away(error), **body)

    async def _known(self, tx: Transaction, incident: str) -> str | None:
        if not incident:
            return None
        try:
            return (await self._ledger.incidents.get(tx, incident)).id
        except NoSuchIncidentError:
            return None

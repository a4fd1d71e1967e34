"""Pauses: a person keeps Tiphys from starting anything in a scope, for a while.

Invariants: a pause ends by itself, by the database's clock, and by a person's word; whoever pauses
again in the same scope replaces their own pause and nobody else's, so that the longest one counts;
who may end them is judged in the transaction that ends them; each word is recorded with its end.
"""

import re
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, insert, select

from tiphys.policies.model import Instant, Noun, Target
from tiphys.policies.parts import PauseFact
from tiphys.policies.people import Person, PersonRole, same_person
from tiphys.service.database import Database, Transaction, moment, stamp
from tiphys.service.errors import BadInputError
from tiphys.service.ledger import Ledger
from tiphys.service.people import demand
from tiphys.service.records import AuditEvent
from tiphys.service.tables import pauses

CLUSTER = "cluster"
"""The scope of everything."""
DEFAULT = timedelta(hours=1)
LONGEST = timedelta(days=7)
"""What must last for longer is the policy's to say, or the stop's."""

_NAMESPACE = re.compile(r"namespace:[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TIME = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Pause(Noun):
    """One of them."""

    scope: str
    """`cluster`, or `namespace:NAME`."""
    by: str
    reason: str
    at: Instant
    until: Instant


def parse_scope(text: str) -> str:
    """Read a scope; raises `BadInputError`."""
    if text == CLUSTER or _NAMESPACE.fullmatch(text):
        return text
    raise BadInputError(f"the scope of a pause is `cluster` or `namespace:NAME`, not {text!r}")


def namespace_in(scope: str) -> str | None:
    """Give the namespace of a scope; None: all of them. Raises `BadInputError`."""
    return parse_scope(scope).removeprefix("namespace:") if scope != CLUSTER else None


def is_time(text: str) -> bool:
    """Tell a time, such as `30m`, from a scope."""
    return _TIME.fullmatch(text) is not None


def parse_time(text: str) -> timedelta:
    """Read how long, such as `30m`, `2h` or `1d`; raises `BadInputError`."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise BadInputError(f"how long is a number with s, m, h or d, such as 30m, not {text!r}")
    lasts = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if not timedelta() < lasts <= LONGEST:
        raise BadInputError(f"a pause lasts for more than nothing and {LONGEST.days} days at most")
    return lasts


class Pauses:
    """Pauses, resumes and lists."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def pause(
        self, scope: str = CLUSTER, lasts: timedelta = DEFAULT, *, by: str, reason: str
    ) -> Pause:
        """Pause a scope from now on; raises `BadInputError`."""
        parse_scope(scope)
        if not timedelta() < lasts <= LONGEST:
            raise BadInputError(f"a pause lasts for {LONGEST.days} days at most")
        async with self._ledger.database.transaction() as tx:
            # Two words at once are one after the other, and a launch is before or after both.
            await self._ledger.database.lock(tx, "budget")
            now = await self._ledger.database.time(tx, self._ledger.clock())
            made = Pause(scope=scope, by=by, reason=reason, at=now, until=now + lasts)
            mine = (pauses.c.scope == scope) & (pauses.c.by == by)
            await tx.execute(delete(pauses).where(mine | (pauses.c.until <= stamp(now))))
            values = {"scope": scope, "by": by, "reason": reason}
            times = {"at": stamp(made.at), "until": stamp(made.until)}
            await tx.execute(insert(pauses).values(**values, **times))
            body = {"scope": scope, "reason": reason, "until": stamp(made.until)}
            await self._ledger.audit.append(tx, AuditEvent.PAUSED, actor=by, body=body)
        return made

    async def resume(
        self, scope: str = CLUSTER, *, person: Person, reason: str = ""
    ) -> list[Pause]:
        """End every pause of a scope; gives those that it ended.

        It takes an operator of the scope where all of them are their own, else an admin there;
        raises `NotAllowedError`.
        """
        namespace, by = namespace_in(scope), person.name
        database = self._ledger.database
        async with database.transaction() as tx:
            await database.lock(tx, "budget")
            now = await database.time(tx, self._ledger.clock())
            ended = [pause for pause in await lasting(tx, now) if pause.scope == scope]
            own = all(same_person(pause.by, by) for pause in ended)
            demand(person, PersonRole.OPERATOR if own else PersonRole.ADMIN, namespace)
            await tx.execute(delete(pauses).where(pauses.c.scope == scope))
            if ended:
                whose = sorted(pause.by for pause in ended)
                body = {"scope": scope, "reason": reason, "of": whose}
                await self._ledger.audit.append(tx, AuditEvent.RESUMED, actor=by, body=body)
        return ended

    async def all(self) -> list[Pause]:
        """List those that last, the first to end first."""
        database = self._ledger.database
        async with database.reading() as tx:
            return await lasting(tx, await database.time(tx, self._ledger.clock()))


async def lasting(tx: Transaction, now: Instant) -> list[Pause]:
    """Give the pauses that last at this time, which is the database's."""
    query = select(pauses).where(pauses.c.until > stamp(now)).order_by(pauses.c.until, pauses.c.by)
    return [
        Pause(scope=r.scope, by=r.by, reason=r.reason, at=moment(r.at), until=moment(r.until))
        for r in await tx.execute(query)
    ]


async def covering(
    database: Database, tx: Transaction, target: Target, ours: Instant
) -> Sequence[PauseFact]:
    """Give what the gate must know: the pauses that cover a target now."""
    scopes = {CLUSTER, f"namespace:{target.namespace}"}
    now = await database.time(tx, ours)
    return tuple(
        PauseFact(scope=pause.scope, by=pause.by, reason=pause.reason, until=pause.until)
        for pause in await lasting(tx, now)
        if pause.scope in scopes
    )

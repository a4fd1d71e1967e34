"""What `/tiphys` orders: run, undo, pause, resume and stop, by people who may, as everywhere else.

Invariants: a pause is ended by whoever made it alone, or by an admin of its scope; the stop asks
nothing back, and what Slack cannot do, releasing it, is said with the word that can.
"""

from itertools import takewhile

from tiphys.policies.people import Person, PersonRole
from tiphys.service.api import Office
from tiphys.service.errors import NotAllowedError, UsageError
from tiphys.service.pauses import CLUSTER, DEFAULT, Pauses, is_time, namespace_in, parse_time
from tiphys.service.people import demand
from tiphys.service.slack.attempts import Attempts
from tiphys.service.slack.buttons import promised
from tiphys.service.stopping import Stopping
from tiphys.service.wishes import is_setting, read_settings

MAX_REASON = 2000


class Orders:
    """Each gives the sentence for whoever gave it."""

    def __init__(self, office: Office, attempts: Attempts) -> None:
        self._office = office
        self._attempts = attempts

    async def undo(self, person: Person, rest: str) -> str:
        """Have a run undone: `RUN REASON`."""
        run, _, reason = rest.partition(" ")
        if not run or not reason.strip():
            raise UsageError("say which run and why: undo RUN REASON")
        why = reason.strip()[:MAX_REASON]
        return await promised(self._office, self._office.undos.ask(run, person=person, reason=why))

    async def run(self, person: Person, rest: str) -> str:
        """Have an action done: `ACTION TARGET [NAME=VALUE...] REASON`."""
        action, target, *words = [*rest.split(), "", ""]
        given = list(takewhile(is_setting, words))
        reason = " ".join(words[len(given) :]).strip()[:MAX_REASON]
        if not action or not target or not reason:
            raise UsageError("say what, on what and why: run ACTION TARGET [NAME=VALUE...] REASON")
        wishes, parameters = self._office.wishes, read_settings(given)
        asking = wishes.ask(action, target, parameters, person=person, reason=reason)
        return await promised(self._office, asking)

    async def stop(self, person: Person, rest: str) -> str:
        """Stop everything new: `[--runs] [REASON]`."""
        if not self._attempts.stops(person):
            raise NotAllowedError(f"{person.name} has not the role operator anywhere")
        first, _, left = rest.partition(" ")
        runs = first == "--runs"
        if runs:  # of everybody: one's own are stopped one by one
            demand(person, PersonRole.OPERATOR, None)
        reason = (left if runs else rest).strip()[:MAX_REASON] or "stopped from Slack"
        stopping = Stopping(self._office.ledger, self._office.stop, self._office.run_stops)
        done = await stopping.stop(by=person.name, reason=reason, runs=runs)
        told = f" {len(done.incidents)} runs are told to stop and roll back." if runs else ""
        return (
            f"Stopped, by ConfigMap {done.config_map}: nothing new starts until a human says "
            f"`tiphys resume --stop` with their own credentials.{told}"
        )

    async def pause(self, person: Person, rest: str) -> str:
        """Let nothing new start for a while: `[SCOPE] [TIME] [REASON]`."""
        words = rest.split()
        scope = CLUSTER
        if words and (words[0] == CLUSTER or ":" in words[0]):
            scope = words.pop(0)
        lasts = DEFAULT
        if words and is_time(words[0]):
            lasts = parse_time(words.pop(0))
        demand(person, PersonRole.OPERATOR, namespace_in(scope))
        reason = " ".join(words)[:MAX_REASON]
        made = await Pauses(self._office.ledger).pause(scope, lasts, by=person.name, reason=reason)
        return f"Paused: {made.scope} until {made.until:%Y-%m-%d %H:%M:%S} UTC, or your resume."

    async def resume(self, person: Person, rest: str) -> str:
        """End a pause: `[SCOPE]`."""
        scope = rest.strip() or CLUSTER
        ended = await Pauses(self._office.ledger).resume(scope, person=person)
        if ended:
            self._office.wake()
        told = f"Resumed: {scope}." if ended else f"Nothing was paused under {scope}."
        facts = await self._office.stop.read() if self._office.stop else None
        if facts and facts.engaged:
            told += " The stop is still engaged; `tiphys resume --stop` releases it."
        return told

"""A person's wish that a finished run is undone: taken by the gateway, in an incident of its own.

Invariants: who may not act in the run's namespace is refused, in every channel here; only what can
be put back is promised, everything else is refused with a sentence; and what the cluster says of it
the agents, the gate and precheck see.
"""

from tiphys.policies.correlation import UNDO
from tiphys.policies.model import Incident, Outcome, Plan, Undoing
from tiphys.policies.people import Person, PersonRole
from tiphys.service.errors import NotUndoableError
from tiphys.service.incidents import Asked
from tiphys.service.ledger import Ledger
from tiphys.service.people import demand
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs, StoredRun
from tiphys.workflow_templates import undoing
from tiphys.workflow_templates.catalogue import UnknownActionError, find

_ENDED = {
    None: "it never started",
    Outcome.REFUSED: "it changed nothing",
    Outcome.INEFFECTIVE: "what it did has nothing to put back",
    Outcome.ROLLED_BACK: "it was rolled back already",
    Outcome.ROLLBACK_FAILED: "its own rollback did not hold: that is for a human's hands",
}
"""Why there is nothing to undo. What is verified stands, and what is unknown may stand."""


class Undos:
    """Takes wishes."""

    def __init__(self, ledger: Ledger, runs: Runs) -> None:
        self._ledger = ledger
        self._runs = runs

    async def ask(self, run: str, *, person: Person, reason: str) -> Incident:
        """Open an incident for the undo of a run, named by its Workflow or a beginning of that.

        Raises `NoSuchRunError`, `NotAllowedError`, `NotUndoableError`, `AskedAlreadyError`.
        """
        by, ledger = person.name, self._ledger
        async with ledger.database.transaction() as tx:
            found, plan = await self._runs.named(tx, run)
            demand(person, PersonRole.OPERATOR, plan.target.namespace)
            if why := _why_not(found, plan):
                raise NotUndoableError(why)
            of = await ledger.incidents.get(tx, found.incident_id)
            asked = Asked(
                cluster=of.cluster,
                subject=f"{UNDO}{found.name}",
                title=f"undo of {plan.action} on {plan.target}",
                severity=of.severity,
                reason=f"{by} has it undone: {reason}",
                what="its undo",
                wish={"undoes": Undoing(run=found.name, by=by, reason=reason)},
            )
            cause = {"of": of.id}
            incident = await ledger.incidents.open_wish(tx, asked, cause, ledger.clock())
            body = {"workflow": found.name, "incident": incident.id, "by": by, "reason": reason}
            await ledger.audit.append(
                tx, AuditEvent.UNDO_ASKED, actor=by, incident_id=found.incident_id, body=body
            )
        return incident


def _why_not(run: StoredRun, plan: Plan) -> str | None:
    try:
        action = find(plan.action)
    except UnknownActionError as error:
        return str(error)
    if run.open:
        return f"it is still under way: `tiphys abort {run.incident_id}` stops it and rolls back"
    return _ENDED.get(run.outcome) or undoing.never(action, plan)

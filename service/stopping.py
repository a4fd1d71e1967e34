"""A person says stop, by command, API or chat: the switch, the record, and on demand the runs.

Invariants: the switch comes first, because it alone works whatever else is away; what is asked of
runs is asked of each one open at that moment, and asking again asks nothing twice.
"""

from dataclasses import dataclass

from tiphys.service.database import AWAY, why_away
from tiphys.service.errors import DatabaseAwayError, UsageError
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.run_stops import RunStops
from tiphys.service.stop_switch import StopSwitch


@dataclass(frozen=True)
class Stopped:
    """What came of it."""

    config_map: str
    """The ConfigMap that now stops everything new."""
    incidents: tuple[str, ...] = ()
    """Those whose run has been asked to stop and to roll back, now for the first time."""


class Stopping:
    """Engages the stop for a person."""

    def __init__(self, ledger: Ledger, switch: StopSwitch | None, run_stops: RunStops) -> None:
        """`switch` is None where no credentials for the stop namespace are configured."""
        self._ledger = ledger
        self._switch = switch
        self._run_stops = run_stops

    async def stop(self, *, by: str, reason: str, runs: bool = False) -> Stopped:
        """Stop everything new; with `runs`, have what runs stop and roll back too.

        Raises `ArgoUnavailableError` when nothing was stopped, `DatabaseAwayError` when everything
        new is stopped and the rest has to be asked for again.
        """
        if self._switch is None:
            raise UsageError("no credentials for the stop namespace are configured")
        name = await self._switch.engage(by=by, reason=reason, now=self._ledger.clock())
        body = {"config_map": name, "reason": reason, "runs": runs}
        try:
            async with self._ledger.database.transaction() as tx:
                await self._ledger.audit.append(tx, AuditEvent.STOP_ENGAGED, actor=by, body=body)
            asked = await self._run_stops.ask_all(by=by, reason=reason) if runs else []
        except AWAY as error:
            left = "so that the record says who did it"
            raise DatabaseAwayError(
                f"{why_away(error)}. All the same everything new is stopped, by ConfigMap {name}; "
                f"ask again when the database is back, {left}"
                + (" and that every run is told to stop" if runs else "")
            ) from error
        return Stopped(name, tuple(incident.id for incident in asked))

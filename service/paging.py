"""Tells humans through Alertmanager, whose routes, silences and schedules they already have."""

from datetime import datetime, timedelta

import structlog

from tiphys.agents.ports import UnansweredError
from tiphys.policies.correlation import OWN_LABEL
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Incident
from tiphys.service.alertmanager import Alertmanagers, OwnAlert
from tiphys.service.errors import NobodyToldError
from tiphys.service.ledger import utc_now

log = structlog.get_logger()

KINDS = {State.ESCALATED: "TiphysEscalation", State.AWAITING_APPROVAL: "TiphysApprovalWanted"}
"""The alert that each state of an incident raises."""


class AlertPager:
    """Posts one alert of our own for each incident that needs a human."""

    def __init__(self, alertmanagers: Alertmanagers | None) -> None:
        self._alertmanagers = alertmanagers

    async def page(self, incident: Incident, *, until: timedelta) -> str:
        """Tell them; repeat within `until`. Returns how; raises `NobodyToldError`."""
        log.warning("a human is needed", incident=incident.id, why=incident.reason)
        if self._alertmanagers is None:
            return "log only: no Alertmanager is configured"
        await self._post(incident, utc_now() + until)
        return "alertmanager"

    async def resolve(self, incident: Incident) -> None:
        """Tell them that it is over; raises `NobodyToldError`."""
        if self._alertmanagers is not None:
            await self._post(incident, utc_now())

    async def _post(self, incident: Incident, ends_at: datetime) -> None:
        alert = OwnAlert(
            labels={
                "alertname": KINDS[State(incident.state)],
                "cluster": incident.cluster,
                "severity": incident.severity,
                OWN_LABEL: incident.id,
            },
            annotations={"summary": incident.title, "description": incident.reason},
            starts_at=incident.changed_at,
            ends_at=ends_at,
        )
        if self._alertmanagers is None:
            return
        try:
            await self._alertmanagers.post([alert])
        except UnansweredError as error:
            raise NobodyToldError(str(error)) from error

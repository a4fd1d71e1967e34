"""Tells humans through Alertmanager, whose routes, silences and schedules they already have."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
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


GATHER_SECONDS = 0.1
"""How long a page waits for others that go out at the same time."""


@dataclass(frozen=True)
class _Page:
    alert: OwnAlert
    told: "asyncio.Future[None]"


class AlertPager:
    """Posts one alert of our own for each incident that needs a human; several in one post."""

    def __init__(self, alertmanagers: Alertmanagers | None) -> None:
        self._alertmanagers = alertmanagers
        self._waiting: list[_Page] = []
        self._posting: asyncio.Task[None] | None = None

    async def page(self, incident: Incident, *, until: timedelta) -> str:
        """Tell them; repeat within `until`. Returns how; raises `NobodyToldError`."""
        log.warning("a human is needed", incident=incident.id, why=incident.reason)
        if self._alertmanagers is None:
            return "log only: no Alertmanager is configured"
        await self._post(self._alertmanagers, _alert(incident, utc_now() + until))
        return "alertmanager"

    async def resolve(self, incident: Incident) -> None:
        """Tell them that it is over; raises `NobodyToldError`."""
        if self._alertmanagers is not None:
            await self._post(self._alertmanagers, _alert(incident, utc_now()))

    async def _post(self, alertmanagers: Alertmanagers, alert: OwnAlert) -> None:
        """Return when this alert has been taken, whatever becomes of the others."""
        page = _Page(alert, asyncio.get_running_loop().create_future())
        self._waiting.append(page)
        if self._posting is None:
            self._posting = asyncio.create_task(self._post_all(alertmanagers))
        await page.told

    async def _post_all(self, alertmanagers: Alertmanagers) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        pages, self._waiting, self._posting = self._waiting, [], None
        if len(pages) > 1 and not await _posted(alertmanagers, pages):
            # One that is refused must not keep the others from being heard.
            await asyncio.gather(*(_posted(alertmanagers, [page]) for page in pages))
        elif len(pages) == 1:
            await _posted(alertmanagers, pages)


async def _posted(alertmanagers: Alertmanagers, pages: Sequence[_Page]) -> bool:
    """Post together and tell who waits; nobody is told that several together failed."""
    failure: NobodyToldError | None = None
    try:
        await alertmanagers.post([page.alert for page in pages])
    except UnansweredError as error:
        failure = NobodyToldError(str(error))
    except Exception as error:  # whoever waits must be told, or waits for ever
        failure = NobodyToldError(f"{type(error).__name__}: {error}")
    if failure and len(pages) > 1:
        return False
    for page in pages:
        if page.told.done():
            continue  # its stage has been cancelled
        if failure:
            page.told.set_exception(failure)
        else:
            page.told.set_result(None)
    return failure is None


def _alert(incident: Incident, ends_at: datetime) -> OwnAlert:
    return OwnAlert(
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

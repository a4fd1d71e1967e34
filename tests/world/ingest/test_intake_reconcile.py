"""What Alertmanager lists against what we believe: missed, gone, silenced."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from tiphys.agents.ports import UnansweredError
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Alert, AlertStatus
from tiphys.service import episodes
from tiphys.service.alertmanager import MAX_TOLD, Alertmanagers, OwnAlert
from tiphys.service.bus import Bus
from tiphys.service.episodes import Arrival
from tiphys.service.intake import Intake, IntakeMetrics
from tiphys.service.ledger import Ledger, utc_now
from tiphys.service.reconcile import GONE_AFTER, ReconcileMetrics, Reconciler
from tiphys.service.records import AuditEvent
from tiphys.service.tables import proposals

BROKEN = {"alertname": "Broken", "namespace": "shop", "pod": "lonely"}
OTHER = {"alertname": "Other", "namespace": "shop", "pod": "lonely"}


@dataclass
class Minute:
    """A reconciler between two Alertmanagers and a database."""

    first: Any
    second: Any
    alertmanagers: Alertmanagers
    reconciler: Reconciler
    ledger: Ledger
    intake: Intake

    async def rows(self) -> list[Any]:
        async with self.ledger.database.reading() as tx:
            query = episodes.inbox.select().order_by(episodes.inbox.c.id)
            return list((await tx.execute(query)).all())

    async def incident(self) -> Any:
        async with self.ledger.database.reading() as tx:
            (found,) = await self.ledger.incidents.find(tx)
            return found

    async def admit(self, *alerts: Alert) -> None:
        async with self.ledger.database.transaction() as tx:
            await self.intake.admit(tx, [Arrival(alert) for alert in alerts])

    async def listed(self) -> list[Alert]:
        return [item.alert for item in (await self.alertmanagers.listing()).alerts.values()]


@pytest_asyncio.fixture
async def minute(ledger: Ledger, fake_alertmanager, serve) -> AsyncGenerator[Minute]:
    first, second = fake_alertmanager(), fake_alertmanager()
    intake = Intake(Bus(max_bytes=1 << 20), ledger, IntakeMetrics(CollectorRegistry()))
    async with serve(first) as one, serve(second) as two:
        alertmanagers = Alertmanagers([one, two], cluster="prod", timeout=0.5)
        metrics = ReconcileMetrics(CollectorRegistry())
        reconciler = Reconciler(alertmanagers, intake, ledger, metrics, interval=60)
        yield Minute(first, second, alertmanagers, reconciler, ledger, intake)
        await alertmanagers.close()


async def test_what_is_active_and_unknown_is_taken_in_once(minute: Minute) -> None:
    minute.first.put(BROKEN)
    minute.second.put(BROKEN)
    minute.first.put({**OTHER, "alertname": "Silenced"}, silenced=True)
    minute.first.put({**OTHER, "alertname": "Inhibited"}, inhibited=True)
    for _ in range(2):
        assert await minute.reconciler.once()
    (row,) = await minute.rows()
    assert (row.open, row.cluster) == (True, "prod")
    incident = await minute.incident()
    assert incident.title == "Broken on pod shop/lonely"


async def test_one_dead_alertmanager_still_brings_alerts_in_but_calls_nothing_gone(
    minute: Minute,
) -> None:
    minute.first.put(BROKEN)
    assert await minute.reconciler.once()
    minute.first.alerts.clear()
    minute.first.put(OTHER)
    minute.second.status = 500
    for _ in range(GONE_AFTER + 1):
        assert not await minute.reconciler.once()
    assert [(row.open, row.missing_listings) for row in await minute.rows()] == [(True, 0)] * 2


async def test_three_listings_without_it_end_an_alert(minute: Minute) -> None:
    minute.first.put(BROKEN)
    await minute.reconciler.once()
    minute.first.alerts.clear()
    for _ in range(GONE_AFTER - 1):
        await minute.reconciler.once()
    minute.second.put(BROKEN)  # back once: the count begins again
    await minute.reconciler.once()
    minute.second.alerts.clear()
    for misses in range(1, GONE_AFTER):
        await minute.reconciler.once()
        (row,) = await minute.rows()
        assert (row.open, row.missing_listings) == (True, misses)
    await minute.reconciler.once()
    (row,) = await minute.rows()
    assert not row.open
    incident = await minute.incident()
    async with minute.ledger.database.reading() as tx:
        assert await episodes.gone(tx, incident.id, listings=GONE_AFTER)
    events = [r.event async for r in minute.ledger.audit.read(incident_id=incident.id)]
    assert events.count(AuditEvent.ALERT_ENDED) == 1


async def test_a_resolved_post_still_waits_for_three_listings(minute: Minute) -> None:
    minute.first.put(BROKEN)
    await minute.reconciler.once()
    (alert,) = await minute.listed()
    minute.first.alerts.clear()
    await minute.admit(alert.model_copy(update={"status": AlertStatus.RESOLVED}))
    incident = await minute.incident()
    answers: list[bool] = []
    assert [row.open for row in await minute.rows()] == [False]
    for _ in range(GONE_AFTER):
        async with minute.ledger.database.reading() as tx:
            answers.append(await episodes.gone(tx, incident.id, listings=GONE_AFTER))
        await minute.reconciler.once()
    async with minute.ledger.database.reading() as tx:
        answers.append(await episodes.gone(tx, incident.id, listings=GONE_AFTER))
    assert answers == [False] * GONE_AFTER + [True]


async def test_news_during_a_listing_is_newer_than_the_listing(minute: Minute) -> None:
    """An alert that resolves while we ask is not brought back, one that fires is not missing."""
    minute.first.put(BROKEN)
    await minute.reconciler.once()
    (alert,) = await minute.listed()
    listing = await minute.alertmanagers.listing()
    began = utc_now()
    await minute.admit(alert.model_copy(update={"status": AlertStatus.RESOLVED}))
    async with minute.ledger.database.transaction() as tx:
        await minute.reconciler._inject(tx, listing, began)
        assert await minute.reconciler._known(tx, before=began) == []
    assert [row.open for row in await minute.rows()] == [False]
    await minute.reconciler.once()
    assert [row.open for row in await minute.rows()] == [False, True]


async def test_a_silence_suspends_and_its_end_resumes(minute: Minute) -> None:
    minute.first.put(BROKEN)
    minute.first.put(OTHER)
    await minute.reconciler.once()
    minute.first.alerts.clear()
    minute.first.put(BROKEN, silenced=True)
    minute.first.put(OTHER)
    await minute.reconciler.once()
    assert (await minute.incident()).state == State.OPEN  # one alert is still loud
    minute.first.alerts.clear()
    minute.first.put(BROKEN, silenced=True)
    minute.first.put(OTHER, inhibited=True)
    await minute.reconciler.once()
    suspended = await minute.incident()
    assert suspended.state == State.SUSPENDED
    assert suspended.reason == "every alert of it is silenced or inhibited"
    await minute.reconciler.once()
    assert await minute.incident() == suspended
    minute.first.alerts.clear()
    minute.first.put(BROKEN)
    async with minute.ledger.database.transaction() as tx:  # something had been decided
        await tx.execute(
            proposals.insert().values(incident_id=suspended.id, attempt=1, at="", decision="{}")
        )
    await minute.reconciler.once()
    resumed = await minute.incident()
    assert (resumed.state, resumed.attempt) == (State.OPEN, 2)


async def test_facts(minute: Minute) -> None:
    minute.first.put(BROKEN, silenced=True)
    minute.second.put(OTHER)
    broken, other = await minute.listed()
    facts = await minute.alertmanagers.facts([broken])
    assert (facts.firing, facts.silenced, facts.inhibited) == (True, True, False)
    facts = await minute.alertmanagers.facts([broken, other])
    assert (facts.firing, facts.silenced) == (True, False)
    assert facts.names == ("Broken", "Other")
    assert facts.alerts
    assert [(one.name, one.labels) for one in facts.alerts] == [
        ("Broken", broken.labels),
        ("Other", other.labels),
    ]
    gone = other.model_copy(update={"fingerprint": "0"})
    assert not (await minute.alertmanagers.facts([gone])).firing


async def test_too_many_alerts_are_not_told_one_by_one(minute: Minute) -> None:
    """A rule that reads them then denies, rather than judge by some of them."""
    for at in range(MAX_TOLD + 1):
        minute.first.put({**BROKEN, "pod": f"p-{at}"})
    alerts = await minute.listed()
    assert (await minute.alertmanagers.facts(alerts[:MAX_TOLD])).alerts is not None
    whole = await minute.alertmanagers.facts(alerts)
    assert whole.alerts is None
    assert whole.names == ("Broken",)


@pytest.mark.parametrize("trouble", ["down", "nonsense", "slow"])
async def test_facts_that_cannot_be_read_are_not_health(minute: Minute, trouble: str) -> None:
    minute.first.put(BROKEN)
    (alert,) = await minute.listed()
    if trouble == "down":
        minute.second.status = 503
    elif trouble == "nonsense":
        minute.second.alerts.append({"labels": 7})
    else:
        minute.second.delay = 1.5
    with pytest.raises(UnansweredError, match=r"127\.0\.0\.1"):
        await minute.alertmanagers.facts([alert])


async def test_facts_without_an_alertmanager_are_unknown() -> None:
    with pytest.raises(UnansweredError, match="TIPHYS_ALERTMANAGER_URLS"):
        await Alertmanagers([], cluster="prod").facts([])


async def test_our_alerts_reach_every_alertmanager_and_one_is_enough(minute: Minute) -> None:
    now = utc_now()
    own = OwnAlert({"alertname": "TiphysEscalation"}, {"summary": "look"}, now, now)
    await minute.alertmanagers.post([own])
    assert minute.first.posted == minute.second.posted
    assert minute.first.posted[0]["labels"] == {"alertname": "TiphysEscalation"}
    minute.first.status = 500
    await minute.alertmanagers.post([own])
    minute.second.status = 500
    with pytest.raises(UnansweredError):
        await minute.alertmanagers.post([own])


def test_credentials_in_a_url_are_not_shown() -> None:
    from tiphys.service import alertmanager

    assert "secret" not in alertmanager._shown("http://me:secret@host:9093/path")

"""From the stream to incidents: each alert once, whatever comes twice, late or broken."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from tiphys.policies.correlation import subject
from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Alert
from tiphys.service import episodes
from tiphys.service.episodes import Arrival
from tiphys.service.flights import Message
from tiphys.service.incidents import Step
from tiphys.service.intake import fair
from tiphys.service.ledger import utc_now
from tiphys.service.records import AuditEvent, verify
from tiphys.service.tables import dead_letters, incidents

POSTS = Path(__file__).parents[2] / "data" / "alertmanager" / "webhook_posts.jsonl"


async def sent(ingest, *bodies: bytes) -> None:
    for body in bodies:
        assert (await ingest.post(body)).status_code == 200
    await ingest.drain()


async def test_the_44_real_posts(ingest) -> None:
    lines = POSTS.read_text().splitlines()
    await sent(ingest, *(line.encode() for line in lines))
    wanted: dict[tuple[str, str], str] = {}
    for line in lines:
        for item in json.loads(line)["alerts"]:
            cluster = item["labels"].get("cluster", "prod")
            wanted[cluster, item["fingerprint"]] = item["status"]
    known = {i.id: i for i in await ingest.incidents()}
    rows = await ingest.episodes()
    assert len(rows) == len(wanted)
    for row in rows:
        alert = Alert.model_validate_json(row.alert)
        incident = known[row.incident_id]
        assert (incident.cluster, incident.subject) == (alert.cluster, subject(alert.labels))
        assert row.open == (wanted[row.cluster, row.fingerprint] == "firing")
    assert sum(not row.open for row in rows) == 1
    assert len(known) < len(rows)
    assert verify([r.model_dump_json() for r in await ingest.records()]).problem is None


async def test_firing_resolved_firing_with_one_start_is_two_episodes(
    ingest, alert, post_of
) -> None:
    firing, resolved = post_of(alert()), post_of(alert(status="resolved"))
    await sent(ingest, firing, resolved, firing)
    first, second = await ingest.episodes()
    assert (first.open, second.open) == (False, True)
    assert first.starts_at == second.starts_at
    assert first.incident_id == second.incident_id  # it had not been closed in between


async def test_a_new_firing_after_the_incident_closed_opens_another(ingest, alert, post_of) -> None:
    await sent(ingest, post_of(alert()), post_of(alert(status="resolved")))
    (incident,) = await ingest.incidents()
    async with ingest.ledger.database.transaction() as tx:
        await ingest.ledger.incidents.move(tx, incident, Step(Move.RESOLVE, "over"), now=utc_now())
    await sent(ingest, post_of(alert()))
    assert sorted(i.state for i in await ingest.incidents()) == [State.CLOSED, State.OPEN]


async def test_repeats_count_and_change_nothing(ingest, alert, post_of) -> None:
    await sent(ingest, *[post_of(alert())] * 3)
    (row,) = await ingest.episodes()
    assert (row.repeats, row.open) == (2, True)
    assert len(await ingest.records()) == 1


async def test_a_later_start_ends_the_episode_that_ended_unseen(ingest, alert, post_of) -> None:
    later = {**alert(), "startsAt": "2026-11-20T23:00:00Z"}
    await sent(ingest, post_of(alert()), post_of(later))
    first, second = await ingest.episodes()
    assert (first.open, second.open) == (False, True)


async def test_resolving_what_is_unknown_opens_nothing(ingest, alert, post_of) -> None:
    await sent(ingest, post_of(alert(status="resolved")), post_of(alert(status="resolved")))
    (row,) = await ingest.episodes()
    assert (row.open, row.incident_id) == (False, None)
    assert await ingest.incidents() == []


async def test_alerts_on_one_workload_are_one_incident_and_others_are_not(
    ingest, alert, post_of
) -> None:
    pods = [alert("KubePodCrashLooping", pod=f"cart-7cc77d965f-cgsd{c}") for c in "vwx"]
    owner = alert("KubeDeploymentReplicasMismatch", deployment="cart", severity="critical")
    other = alert("KubePodCrashLooping", pod="db-0")
    far = alert("KubePodCrashLooping", pod="db-0", cluster="far")
    await sent(ingest, post_of(*pods), post_of(owner, other, far))
    found = {(i.cluster, i.subject): i for i in await ingest.incidents()}
    assert set(found) == {
        ("prod", "deployment shop/cart"),
        ("prod", "statefulset shop/db"),
        ("far", "statefulset shop/db"),
    }
    cart = found["prod", "deployment shop/cart"]
    assert cart.severity == "critical"
    events = Counter(r.event for r in await ingest.records(cart.id))
    assert events == {AuditEvent.INCIDENT_OPENED: 1, AuditEvent.ALERT_OPENED: 3}
    assert ingest.changes


async def test_the_incident_is_told_when_its_last_alert_ends(ingest, alert, post_of) -> None:
    one, two = alert("A"), alert("B")
    await sent(ingest, post_of(one, two))
    (incident,) = await ingest.incidents()

    async def due(at: str = "") -> str:
        async with ingest.ledger.database.transaction() as tx:
            if at:
                await tx.execute(incidents.update().values(due_at=at))
            return (await tx.execute(select(incidents.c.due_at))).scalar_one()

    never = "9999-01-01T00:00:00.000000Z"
    await due(never)
    await sent(ingest, post_of({**one, "status": "resolved"}))
    assert await due() == never
    await sent(ingest, post_of({**two, "status": "resolved"}))
    assert await due() < never
    async with ingest.ledger.database.reading() as tx:
        assert await episodes.gone(tx, incident.id, listings=0)
        assert not await episodes.gone(tx, incident.id, listings=3)
    ended = [r for r in await ingest.records(incident.id) if r.event == AuditEvent.ALERT_ENDED]
    assert len(ended) == 2


async def test_our_own_alerts_are_noted_and_never_an_incident(ingest, alert, post_of) -> None:
    await sent(ingest, post_of(alert()))
    (incident,) = await ingest.incidents()
    own = alert("TiphysEscalation", tiphys_incident=incident.id)
    await sent(ingest, post_of(own), post_of({**own, "status": "resolved"}))
    stray = alert("TiphysEscalation", tiphys_incident="inc-nobody")
    await sent(ingest, post_of(stray))
    assert len(await ingest.incidents()) == 1
    noted = [r for r in await ingest.records() if r.event == AuditEvent.ALERT_NOTED]
    assert [r.incident_id for r in noted] == [incident.id, incident.id, None]
    async with ingest.ledger.database.reading() as tx:
        assert len(await ingest.ledger.incidents.alerts(tx, incident.id)) == 1


async def test_what_is_no_alert_is_kept_and_keeps_nothing_out(ingest, alert, post_of) -> None:
    await ingest.bus.publish([Message("m", "tiphys.alerts.firing", b'{"no": "alert\xff\0"}')])
    await sent(ingest, post_of(alert()))
    async with ingest.ledger.database.reading() as tx:
        (dead,) = (await tx.execute(select(dead_letters))).all()
    assert dead.payload == '{"no": "alert\\xff\\x00"}'
    assert dead.reason
    assert len(await ingest.incidents()) == 1


async def test_an_alert_that_always_fails_is_kept_and_keeps_nothing_out(
    ingest, alert, post_of
) -> None:
    if not ingest.owner.sqlite:
        pytest.skip("SQLite's way to hate one alert")
    async with ingest.owner.transaction() as tx:  # a database that hates one alert
        await tx.execute(
            text(
                "CREATE TRIGGER hate BEFORE INSERT ON inbox WHEN NEW.alert LIKE '%Poison%' "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        )
    await ingest.post(post_of(alert("Fine", pod="a"), alert("Poison", pod="b")))
    received = await ingest.bus.fetch(200, 1)
    spent = [item.__class__(**{**item.__dict__, "deliveries": 5}) for item in received]
    await ingest.intake.take(spent)
    async with ingest.ledger.database.reading() as tx:
        (dead,) = (await tx.execute(select(dead_letters))).all()
    assert "Poison" in dead.payload
    assert [i.title for i in await ingest.incidents()] == ["Fine on pod shop/a"]


async def test_nothing_is_acknowledged_while_the_database_is_away(ingest, alert, post_of) -> None:
    await ingest.post(post_of(alert()))
    async with ingest.owner.transaction() as tx:
        await tx.execute(text("ALTER TABLE inbox RENAME TO elsewhere"))
    received = await ingest.bus.fetch(200, 1)
    await ingest.intake.take(received)
    async with ingest.owner.transaction() as tx:
        await tx.execute(text("ALTER TABLE elsewhere RENAME TO inbox"))
    assert await ingest.incidents() == []

    async def taken() -> bool:
        return await ingest.drain() == 1

    await ingest.until(taken)
    assert len(await ingest.incidents()) == 1


async def test_a_pool_that_is_used_up_buries_no_alert(ingest, alert, post_of) -> None:
    await ingest.post(post_of(alert()))
    [received] = await ingest.bus.fetch(200, 1)
    spent = received.__class__(**{**received.__dict__, "deliveries": 5})
    pool = ingest.ledger.database.engine.sync_engine.pool
    pool._timeout = 0.1
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(pool.size() + pool._max_overflow):
            connection = await stack.enter_async_context(ingest.ledger.database.engine.connect())
            await connection.execution_options(tiphys_reading=True)
            await connection.execute(text("SELECT 1"))
        await ingest.intake.take([spent])
    async with ingest.ledger.database.reading() as tx:
        assert (await tx.execute(select(dead_letters))).all() == []

    async def taken() -> bool:
        return await ingest.drain() == 1

    await ingest.until(taken)
    assert len(await ingest.incidents()) == 1


_TAKE_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from tiphys.service.bus import Bus
from tiphys.service.database import Database
from tiphys.service.intake import Intake, IntakeMetrics
from tiphys.service.leases import Leases
from tiphys.service.ledger import Ledger, utc_now

class Dying:
    def __init__(self, item):
        self.body, self.sequence, self.position = item.body, item.sequence, item.position
        self.deliveries = item.deliveries
    async def done(self):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = Database.in_directory(Path(sys.argv[1]))
    ledger = Ledger(database, Leases(database, 15), utc_now)
    bus = Bus(max_bytes=32 << 20, ack_seconds=0.5)
    await bus.connect(sys.argv[2])
    intake = Intake(bus, ledger, IntakeMetrics(CollectorRegistry()))
    received = await bus.fetch(200, 5)
    await intake.take([Dying(item) for item in received])

asyncio.run(main())
"""


async def test_killed_between_commit_and_acknowledgement_nothing_doubles(
    ingest, alert, post_of
) -> None:
    if not ingest.owner.sqlite:
        pytest.skip("the process that is killed opens SQLite's file")
    firing, resolved = post_of(alert()), post_of(alert(status="resolved"))
    for body in (firing, resolved, firing, resolved, post_of(alert(pod="other"))):
        await ingest.post(body)
    arguments = [sys.executable, "-c", _TAKE_AND_DIE, str(ingest.directory), ingest.broker.url]
    died = await asyncio.to_thread(subprocess.run, arguments, check=False)
    assert died.returncode == -9
    before = [tuple(row) for row in await ingest.episodes()]
    records = len(await ingest.records())
    assert len(before) == 3

    counted = 0

    async def redelivered() -> bool:
        nonlocal counted
        counted += await ingest.drain()
        return counted == 5

    await ingest.until(redelivered)
    assert [tuple(row) for row in await ingest.episodes()] == before
    assert len(await ingest.records()) == records


async def test_out_of_order_the_later_word_counts(ingest, alert, post_of) -> None:
    """Two replicas may take two messages about one alert in either order."""
    await ingest.post(post_of(alert()))
    await ingest.post(post_of(alert(status="resolved")))
    received = await ingest.bus.fetch(200, 1)
    assert len(received) == 2
    for message in reversed(received):
        await ingest.intake.take([message])
    assert [row.open for row in await ingest.episodes()] == [False]


async def test_a_stream_made_anew_counts_from_the_beginning(ingest, alert, post_of) -> None:
    await sent(ingest, *[post_of(alert())] * 3, post_of(alert(status="resolved")))
    await ingest.bus._stream.delete_stream("tiphys-alerts")
    await ingest.bus.ensure_stream()
    await ingest.post(post_of(alert()))  # sequence 1 again

    async def taken() -> bool:
        try:
            await ingest.drain()
        except Exception:
            return False
        return (await ingest.episodes())[-1].open

    await ingest.until(taken)


def arrival(namespace: str, name: str) -> Arrival:
    fields: dict[str, Any] = {
        "id": name,
        "cluster": "c",
        "fingerprint": name,
        "status": "firing",
        "starts_at": utc_now(),
        "labels": {"namespace": namespace},
        "received_at": utc_now(),
    }
    return Arrival(Alert(**fields))


def test_only_one_stream_has_one_order() -> None:
    known = episodes.Episode(
        1, None, False, "", "", position="20300101T000000/00000000000000000009"
    )
    new = arrival("n", "a")
    early = replace(new, position="20300101T000000/00000000000000000009")
    assert episodes.judge(known, early) is episodes.Course.STALE
    other = replace(new, position="20200101T000000/00000000000000000001")
    assert episodes.judge(known, other) is episodes.Course.BEGIN
    assert episodes.judge(known, new) is episodes.Course.BEGIN


def test_namespaces_take_turns() -> None:
    noisy = [arrival("noisy", f"n{i}") for i in range(5)]
    calm = [arrival("calm", f"c{i}") for i in range(2)]
    order = [a.alert.fingerprint for a in fair([*noisy, *calm])]
    assert order == ["n0", "c0", "n1", "c1", "n2", "n3", "n4"]

"""The loop on a real database file, with small stand-ins for agents and people, and Kubernetes.

`bench` is the service's own half; `kube` is the simulated API server, over HTTP, with admission.
With `TIPHYS_TEST_POSTGRES` (the URL of a server's superuser) every test of the bench runs there
too, each stage as the database user of its role.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kubernetes.aio import client
from sqlalchemy import insert, make_url, text, update
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tiphys.agents.graph import Inspection, Investigation
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import Case, UnansweredError
from tiphys.agents.repair import read_damage
from tiphys.policies.lifecycle import Move, State
from tiphys.policies.limits import Breaker
from tiphys.policies.model import (
    Alert,
    AlertFacts,
    AlertStatus,
    Change,
    Check,
    DecidedBy,
    Evidence,
    Impact,
    Incident,
    NoAction,
    Object,
    Owner,
    Plan,
    Proposal,
    Risk,
    Severity,
    Source,
    StopFacts,
    Target,
    TargetFacts,
)
from tiphys.policies.parse import built_in
from tiphys.policies.people import Person, PersonRole, RoleGrant
from tiphys.policies.policy import Policy
from tiphys.sandbox import admission, installation
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import Store
from tiphys.service import episodes
from tiphys.service.approvals import Approvals
from tiphys.service.argo import Argo
from tiphys.service.audit import Audit
from tiphys.service.breakers import Breakers
from tiphys.service.calendar_watch import CalendarWatch
from tiphys.service.cases import Cases
from tiphys.service.database import Database
from tiphys.service.decide import Decide, Rulebook
from tiphys.service.episodes import Arrival
from tiphys.service.errors import NobodyToldError
from tiphys.service.grants import grant
from tiphys.service.holds import Holds
from tiphys.service.incidents import Incidents, Step, dump
from tiphys.service.investigate import Investigate
from tiphys.service.kubernetes_api import connect
from tiphys.service.launch import Launch
from tiphys.service.leases import Leases
from tiphys.service.ledger import Job, Ledger
from tiphys.service.overlooked import Overlooked
from tiphys.service.pipeline import Stage
from tiphys.service.recheck import Recheck
from tiphys.service.records import Record, Verification, verify
from tiphys.service.roles import Role
from tiphys.service.run_stops import RunStops
from tiphys.service.runs import Runs, StoredRun
from tiphys.service.settle import Settle, Waits
from tiphys.service.tables import inbox, proposals
from tiphys.service.undos import Undos
from tiphys.service.watch import Watch, WatchTimes
from tiphys.service.wishes import Wishes
from tiphys.workflow_templates.render import RenderSettings, manifests
from tiphys.workflow_templates.signature import public_hex

CLUSTER = "sandbox"
POSTGRES = os.environ.get("TIPHYS_TEST_POSTGRES", "")
ACKNOWLEDGE = timedelta(minutes=5)
REPEAT = timedelta(minutes=1)


class Clock:
    """Real time, which a test can push forward; the stand-in for waiting."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@dataclass
class OneObject:
    """A cluster to read, with one object at most; `away` does not answer."""

    thing: dict[str, Any] | None = None
    away: bool = False

    async def get(self, _version: str, _kind: str, _namespace: str, _name: str) -> Any:
        if self.away:
            raise UnansweredError("the API server is away")
        return self.thing


@dataclass
class Scout:
    """The agents: answers what the test has laid out."""

    clock: Clock
    proposal: Proposal
    decision: Any = None
    firing: bool = True
    silenced: bool = False
    alert_known: bool = True
    target: dict[str, Any] = field(default_factory=dict)
    """What the target's facts say, where it is not what was proposed; None: unreadable."""
    target_known: bool = True
    expression: bool | None = False
    """Whether the alert's expression is true, at the end of an incident."""
    asked: int = 0
    forgotten: list[str] = field(default_factory=list)
    world: Any = field(default_factory=OneObject)

    def evidence(self, name: str = "ev-1", *, ok: bool = True) -> Evidence:
        return Evidence(
            id=name,
            source=Source.KUBERNETES,
            question=f"get {self.proposal.target}",
            asked_at=self.clock(),
            ok=ok,
            answer={"status": "CrashLoopBackOff"},
            summary="it crashes",
        )

    def alert_facts(self) -> AlertFacts | None:
        if not self.alert_known:
            return None
        return AlertFacts(
            firing=self.firing,
            silenced=self.silenced,
            inhibited=False,
            names=("KubePodCrashLooping",),
            read_at=self.clock(),
        )

    def target_facts(self, proposal: Proposal) -> TargetFacts | None:
        if not self.target_known:
            return None
        facts: dict[str, Any] = {
            "target": proposal.target,
            "changes": proposal.changes,
            "managed_cluster": True,
            "namespace_labels": {"tiphys.io/heal": "enabled"},
            "labels": {},
            "annotations": {},
            "owners": (owner_of(proposal.target),),
            "rollout_in_progress": False,
            "impact": Impact(pods=3, pods_taken=1, workloads=99),
            "read_at": self.clock(),
        }
        return TargetFacts.model_validate({**facts, **self.target})

    async def investigate(self, case: Case) -> Investigation:
        self.asked += 1
        decision = self.decision or self.proposal
        facts = self.target_facts(self.proposal)
        name = f"ev-{case.attempt}" if case.attempt > 1 else "ev-1"
        if isinstance(decision, Proposal):
            decision = decision.model_copy(update={"evidence": (name,)})
        return Investigation(decision, [self.evidence(name)], facts, self.alert_facts(), ["seen"])

    async def inspect(self, _case: Case, proposal: Proposal) -> Inspection:
        self.asked += 1
        seen = [self.evidence(f"ev-look-{self.asked}")]
        return Inspection(self.alert_facts(), self.target_facts(proposal), seen)

    async def still_true(self, _case: Case) -> bool | None:
        return self.expression

    async def damage(self, plan: Plan) -> Evidence:
        """What the agents would read of `world`, which has one object at most."""
        return await read_damage(self.world, plan, Notebook(self.clock))

    async def forget(self, incident: str) -> None:
        self.forgotten.append(incident)


@dataclass
class Lever:
    """The stop switch."""

    facts: StopFacts | None = field(default_factory=lambda: StopFacts(engaged=False))

    async def read(self) -> StopFacts | None:
        return self.facts


@dataclass
class Bell:
    """The pager."""

    broken: bool = False
    rung: list[tuple[str, str]] = field(default_factory=list)
    """(incident, reason), in order."""
    hushed: list[str] = field(default_factory=list)

    async def page(self, incident: Incident, *, until: timedelta) -> str:  # noqa: ARG002
        if self.broken:
            raise NobodyToldError("the Alertmanager is away")
        self.rung.append((incident.id, incident.reason))
        return "bell"

    async def resolve(self, incident: Incident) -> None:
        if self.broken:
            raise NobodyToldError("the Alertmanager is away")
        self.hushed.append(incident.id)


def owner_of(target: Target) -> Owner:
    return Owner(api_version="apps/v1", kind="Deployment", name="cart", uid=f"owner-{target.uid}")


def a_target(name: str = "cart-1", namespace: str = "shop", uid: str = "") -> Target:
    return Target(
        cluster=CLUSTER,
        api_version="v1",
        kind="Pod",
        namespace=namespace,
        name=name,
        uid=uid or f"uid-{namespace}-{name}",
    )


def a_proposal(target: Target | None = None, **given: Any) -> Proposal:
    """A proposal that the demo's policy allows in `shop`, unless something else is given."""
    target = target or a_target()
    present = {"phase": "Running", "restarts": 7}
    fields: dict[str, Any] = {
        "action": "restart-pod",
        "version": 1,
        "target": target,
        "changes": (Change(path="", present=present, intended=None),),
        "risk": Risk.LOW,
        "reversible": True,
        "blast_radius": "one pod",
        "undo": "nothing to undo",
        "reason": "it crashes",
        "check": Check(),
        "evidence": ("ev-1",),
        "decided_by": DecidedBy(reasoner="playbooks", playbook="crash-loop"),
    }
    return Proposal.model_validate({**fields, **given})


def a_person(name: str, role: str = "admin", *namespaces: str, teams: Any = ()) -> Person:
    """Somebody with a role, everywhere unless namespaces are named."""
    grant = RoleGrant(role=PersonRole(role), namespaces=namespaces or ("*",))
    return Person(name=name, teams=teams, grants=(grant,))


class Clicks(Approvals):
    """Approvals, by anybody who is named: an admin everywhere, unless it is a `Person`."""

    async def approve(
        self, incident_id: str, *, by: str = "", person: Person | None = None, **more: Any
    ) -> Incident:
        return await super().approve(incident_id, person=person or a_person(by), **more)

    async def deny(
        self, incident_id: str, *, by: str = "", person: Person | None = None, **more: Any
    ) -> Incident:
        return await super().deny(incident_id, person=person or a_person(by), **more)


class Hands(Undos):
    """Undos, wished by anybody who is named, as `Clicks` approves."""

    async def ask(
        self, run: str, *, by: str = "", person: Person | None = None, **more: Any
    ) -> Any:
        return await super().ask(run, person=person or a_person(by), **more)


class Bench:
    """The service's own half, a stage at a time.

    On PostgreSQL each stage works with the database user of its role, which may do no more than
    `grants` says; what a test itself does, it does as the owner.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        policy: Policy | None = None,
        users: Mapping[Role, Database] | None = None,
    ) -> None:
        self.database, self.clock = database, clock
        self.users = users or dict.fromkeys(Role, database)
        self.policy = policy or built_in("demo")
        self.calendars: CalendarWatch | None = None
        self.scout = Scout(clock, a_proposal())
        self.lever, self.bell = Lever(), Bell()
        self.not_after = timedelta(minutes=5)
        self.leases = Leases(database, 15)
        self.ledger = Ledger(database, self.leases, clock)
        self.audit, self.incidents = self.ledger.audit, self.ledger.incidents
        self.runs = Runs(database)
        self.cases = Cases(database, self.incidents, self.runs, CLUSTER)
        self.approvals = self._approvals(Role.GATEWAY)
        ledger, runs, _ = self.of(Role.GATEWAY)
        self.run_stops = RunStops(ledger, runs)
        self.undos = Hands(ledger, runs)
        self.wishes = Wishes(ledger, CLUSTER)
        gateway = self.users[Role.GATEWAY]
        self.holds = Holds(gateway, Audit(gateway), clock)

    def of(self, role: Role) -> tuple[Ledger, Runs, Cases]:
        """What a role writes with: its own user, and the leases that this bench holds."""
        database = self.users[role]
        leases = Leases(database, 15)
        leases.holder = self.leases.holder
        ledger, runs = Ledger(database, leases, self.clock), Runs(database)
        ledger.audit = self.audit  # a test may break it for all
        ledger.incidents = Incidents(database, self.audit)
        return ledger, runs, Cases(database, ledger.incidents, runs, CLUSTER)

    def _approvals(self, role: Role) -> "Clicks":
        ledger, runs, _ = self.of(role)
        return Clicks(ledger, runs, timedelta(seconds=self.policy.approval.expiry_seconds))

    def replica(self) -> "Bench":
        """Another process on the same database."""
        other = Bench(self.database, self.clock, self.policy, self.users)
        other.scout, other.lever, other.bell = self.scout, self.lever, self.bell
        return other

    # --- stages ---------------------------------------------------------------------------------

    @property
    def investigate(self) -> Investigate:
        ledger, _, cases = self.of(Role.AGENTS)
        return Investigate(ledger, cases, self.scout, seconds=60, watch=timedelta(hours=1))

    @property
    def recheck(self) -> Recheck:
        ledger, _, cases = self.of(Role.AGENTS)
        return Recheck(ledger, cases, self.scout)

    @property
    def judge(self) -> Decide:
        rules = Rulebook(self.policy, self.not_after, timedelta(hours=1), self.calendars)
        ledger, runs, cases = self.of(Role.LAUNCHER)
        return Decide(ledger, cases, runs, self._approvals(Role.LAUNCHER), self.lever, rules)

    @property
    def decide(self) -> "Turns":
        """The agents' look and the gate's judgement, one after the other."""
        return Turns(self)

    @property
    def settle(self) -> Settle:
        waits = Waits(dict.fromkeys(Severity, ACKNOWLEDGE), 3, 0, REPEAT)
        ledger, _, cases = self.of(Role.AGENTS)
        return Settle(ledger, cases, self.scout, self.bell, waits)

    @property
    def overlooked(self) -> Overlooked:
        return Overlooked(self.of(Role.AGENTS)[0], self.bell)

    def launch(self, argo: Argo, key: Ed25519PrivateKey) -> Launch:
        ledger, runs, _ = self.of(Role.LAUNCHER)
        return Launch(ledger, runs, argo, key, self.lever)

    def watch(self, argo: Argo) -> Watch:
        ledger, runs, _ = self.of(Role.LAUNCHER)
        breakers = Breakers(runs, self.policy.rule(Breaker))
        return Watch(ledger, runs, argo, WatchTimes(timedelta(hours=1), 3), breakers)

    # --- incidents ------------------------------------------------------------------------------

    def alert(self, subject: str, status: AlertStatus = AlertStatus.FIRING) -> Alert:
        now = self.clock()
        return Alert(
            id=f"{subject}-{status}",
            cluster=CLUSTER,
            fingerprint=f"{abs(hash(subject)):016x}",
            status=status,
            starts_at=now,
            labels={"alertname": "KubePodCrashLooping", "severity": "critical"},
            received_at=now,
        )

    async def open(self, subject: str = "pod shop/cart-1") -> Incident:
        """An incident with one firing alert, as intake opens it."""
        async with self.database.transaction() as tx:
            alert, now = self.alert(subject), self.clock()
            incident, _ = await self.incidents.open(tx, alert=alert, subject=subject, now=now)
            await episodes.begin(tx, Arrival(alert), incident.id, now)
        return incident

    async def proposed(self, subject: str = "pod shop/cart-1", **given: Any) -> Incident:
        """An incident whose investigation has ended with a proposal."""
        self.scout.proposal = a_proposal(**given)
        incident = await self.open(subject)
        return await self.run(self.investigate, incident)

    async def inspected(self, subject: str = "pod shop/cart-1", **given: Any) -> Incident:
        """An incident whose facts lie before the gate."""
        return await self.run(self.recheck, await self.proposed(subject, **given))

    async def launching(self, subject: str = "pod shop/cart-1", **given: Any) -> Incident:
        """An incident whose launch is intended."""
        return await self.run(self.decide, await self.proposed(subject, **given))

    async def escalated(self, subject: str = "pod shop/cart-1") -> Incident:
        incident = await self.open(subject)
        async with self.ledger.person(incident.id) as entry:
            await entry.move(Step(Move.ESCALATE, "a human must look"))
            return entry.incident

    async def asked(self) -> Incident:
        """An incident that waits for an approval."""
        return await self.launching(risk=Risk.HIGH)

    async def watched(self) -> Incident:
        """An incident about which nothing is to be done."""
        self.scout.decision = NoAction(reason="well", decided_by=DecidedBy(reasoner="playbooks"))
        return await self.run(self.investigate, await self.open())

    async def end_alerts(self, incident: Incident) -> None:
        async with self.database.transaction() as tx:
            mine = inbox.c.incident_id == incident.id
            await tx.execute(update(inbox).where(mine).values(open=False))

    async def claim(self, incident_id: str) -> Job | None:
        """Take one incident, if it can be had."""
        found: Job | None = None
        async with self.database.transaction() as tx:
            await self.incidents.wake(tx, incident_id, self.clock())
        now = self.clock()
        for incident, lease in await self.leases.claim_due([*State], now, 100, now):
            if incident.id == incident_id:
                found = Job(incident, lease)
            else:
                await self.leases.release(lease, now)
        return found

    async def job(self, incident: Incident) -> Job:
        claimed = await self.claim(incident.id)
        assert claimed is not None, "the incident is held by somebody"
        return claimed

    async def run(self, stage: Stage, incident: Incident) -> Incident:
        """Let a stage look once, as the pipeline does; gives what became of the incident."""
        job = await self.job(incident)
        try:
            await stage.run(job)
        finally:
            await self.leases.release(job.lease, self.clock())
        return await self.get(incident)

    # --- reading --------------------------------------------------------------------------------

    async def get(self, incident: Incident | str) -> Incident:
        async with self.database.reading() as tx:
            wanted = incident if isinstance(incident, str) else incident.id
            return await self.incidents.get(tx, wanted)

    async def run_of(self, incident: Incident) -> StoredRun:
        async with self.database.reading() as tx:
            run = await self.runs.of(tx, await self.incidents.get(tx, incident.id))
        assert run is not None
        return run

    async def due_at(self, incident: Incident) -> str:
        async with self.database.reading() as tx:
            query = text("SELECT due_at FROM incidents WHERE id = :id")
            return str((await tx.execute(query, {"id": incident.id})).scalar_one())

    async def rows(self, table: str) -> list[dict[str, Any]]:
        async with self.database.reading() as tx:
            found = await tx.execute(text(f"SELECT * FROM {table}"))
            return [dict(row) for row in found.mappings()]

    async def records(self, incident: Incident | None = None) -> list[Record]:
        wanted = incident.id if incident else None
        return [r async for r in self.audit.read(incident_id=wanted)]

    async def events(self, incident: Incident | None = None) -> list[str]:
        return [record.event for record in await self.records(incident)]

    async def verify(self) -> Verification:
        return verify([r.model_dump_json() async for r in self.audit.read()])

    async def keep_proposal(self, incident: Incident, proposal: Proposal) -> None:
        """Lay a proposal beside an incident, as another version of the agents would."""
        async with self.database.transaction() as tx:
            await tx.execute(
                insert(proposals).values(
                    incident_id=incident.id,
                    attempt=incident.attempt,
                    at="",
                    decision=dump(proposal),
                )
            )


@dataclass(frozen=True)
class Turns:
    """Two stages on one job, as two roles work on it in turn."""

    bench: Bench

    async def run(self, job: Job) -> None:
        await self.bench.recheck.run(job)
        inspected = await self.bench.get(job.incident)
        await self.bench.judge.run(Job(inspected, job.lease))


TESTERS = {role: f"tiphys_test_{role}" for role in Role}
"""Database users for tests, of the server that was named; they stay there."""


@contextlib.asynccontextmanager
async def _on_postgres() -> AsyncGenerator[Bench]:
    """A schema of its own on the server that was named, dropped afterwards."""
    schema = f"tiphys_test_{secrets.token_hex(6)}"
    server = create_async_engine(POSTGRES)
    async with server.begin() as connection:
        await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        for user in TESTERS.values():
            known = text("SELECT 1 FROM pg_roles WHERE rolname = :user")
            if not (await connection.execute(known, {"user": user})).first():
                await connection.execute(text(f"CREATE ROLE {user} LOGIN PASSWORD 'tiphys'"))
    place = make_url(POSTGRES).update_query_dict({"options": f"-csearch_path={schema}"})
    owner = Database(place.render_as_string(hide_password=False))
    users = {
        role: Database(
            place.set(username=user, password="tiphys").render_as_string(hide_password=False)
        )
        for role, user in TESTERS.items()
    }
    try:
        async with owner.migrating() as tx:
            assert await tx.run_sync(grant, TESTERS) == []
        yield Bench(owner, Clock(), users=users)
    finally:
        for database in (owner, *users.values()):
            await database.close()
        async with server.begin() as connection:
            await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        await server.dispose()


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once: copying a file is faster than making every table."""

    async def make(database: Database) -> None:
        await database.create()
        await database.close()  # the last one out writes the log back into the file

    directory = tmp_path_factory.mktemp("made")
    asyncio.run(make(Database.in_directory(directory)))
    assert not (directory / "tiphys.db-wal").exists()
    return directory / "tiphys.db"


@pytest_asyncio.fixture(params=["sqlite", *(["postgres"] if POSTGRES else [])])
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, made_database: Path
) -> AsyncGenerator[Bench]:
    if request.param == "postgres":
        async with _on_postgres() as bench:
            yield bench
        return
    shutil.copy(made_database, tmp_path)
    database = Database.in_directory(tmp_path)
    yield Bench(database, Clock())
    await database.close()


@pytest.fixture
def proposal() -> Any:
    return a_proposal


@pytest.fixture
def target() -> Any:
    return a_target


# --- Kubernetes ---------------------------------------------------------------------------------


class Door:
    """Before the API server: `away` lets nothing in, `deaf` loses every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.mode = ""
        self.calls: list[tuple[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append((scope["method"], scope["path"]))
        if self.mode == "away":
            await _answer(send, 503)
        elif self.mode == "deaf":
            await self._app(scope, receive, _nowhere)
            await _answer(send, 504)
        else:
            await self._app(scope, receive, send)


async def _nowhere(message: Message) -> None:
    return None


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


@dataclass
class Kube:
    """The simulated API server with everything an installation brings."""

    store: Store
    tokens: Tokens
    url: str
    door: Door
    key: Ed25519PrivateKey
    argo: Argo
    """Ours, with the launcher's credentials."""
    launcher: client.ApiClient
    gateway: client.ApiClient
    admin: client.ApiClient

    def workflows(self) -> Sequence[Object]:
        return self.store.list("Workflow", installation.ACTIONS)

    def status(self, name: str, status: dict[str, Any]) -> None:
        """Write a Workflow's status, as Argo's controller does."""
        found = self.store.get("Workflow", installation.ACTIONS, name)
        self.store.update({**found, "status": status}, user=admission.CONTROLLER)

    def stop(self, reason: str = "an exercise", label: str = "true") -> None:
        self.store.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": "stop",
                    "namespace": installation.STOP,
                    "labels": {admission.STOP_LABEL: label},
                },
                "data": {"reason": reason},
            }
        )


@pytest_asyncio.fixture
async def kube(tmp_path: Path) -> AsyncGenerator[Kube]:
    store, tokens, key = Store(), Tokens(), Ed25519PrivateKey.generate()
    admission.install(store)
    settings = RenderSettings(image="tiphys-step", public_key=public_hex(key))
    for manifest in [*installation.manifests(), *manifests(settings)]:
        store.create(manifest)
    door = Door(kube_app(store, tokens, Logs()))
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(door))
        paths = installation.write_kubeconfigs(tmp_path, url, tokens)
        launcher, gateway, admin = [
            await stack.enter_async_context(connect(paths[role]))
            for role in (installation.LAUNCHER, installation.GATEWAY, installation.ADMIN)
        ]
        argo = Argo(launcher, installation.ACTIONS)
        yield Kube(store, tokens, url, door, key, argo, launcher, gateway, admin)

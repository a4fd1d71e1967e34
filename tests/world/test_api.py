"""The HTTP API and the health routes, over real HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import pytest_asyncio
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr
from sqlalchemy import insert

from tiphys.policies.lifecycle import State
from tiphys.sandbox.loopback import serving
from tiphys.service import api, health
from tiphys.service.errors import BrokerUnavailableError
from tiphys.service.pipeline import Pace, Pipeline
from tiphys.service.records import AuditEvent, verify
from tiphys.service.rendering import incident_page
from tiphys.service.roles import Role
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.tables import dead_letters
from tiphys.service.undos import Undos
from tiphys.service.views import Views
from tiphys.service.wishes import Wishes

TOKEN = "a-token-of-some-length"
ANN = {"by": "ann", "reason": "I looked"}


async def _well() -> None:
    return None


@dataclass
class Desk:
    """The API as a person meets it."""

    http: httpx2.AsyncClient
    url: str
    checks: dict[str, Callable[[], Awaitable[None]]]
    pipeline: Pipeline
    health: health.Health
    crashed: list[str]

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, status: int, method: str, path: str, **more: Any) -> str:
        answer = await self.http.request(method, path, **more)
        assert answer.status_code == status, answer.text
        detail = answer.json()["detail"]
        return detail if isinstance(detail, str) else json.dumps(detail)


@contextlib.asynccontextmanager
async def desk_of(bench: Any, *, token: str = "", stop: Any = None) -> AsyncGenerator[Desk]:
    app = FastAPI(title="Tiphys", openapi_url="/api/openapi.json")
    ledger, runs, cases = bench.of(Role.GATEWAY)
    views = Views(ledger.database, ledger.audit, ledger.incidents, cases, runs)
    pace = Pace(timedelta(seconds=60), timedelta(seconds=15))
    pipeline = Pipeline(bench.ledger, {}, pace)
    office = api.Office(
        views=views,
        ledger=ledger,
        approvals=bench.approvals,
        audit=ledger.audit,
        holds=bench.holds,
        run_stops=bench.run_stops,
        undos=Undos(ledger, runs),
        wishes=Wishes(ledger, "sandbox"),
        wake=pipeline.wake,
        stop=stop,
        token=SecretStr(token) if token else None,
    )
    api.install(app, office)
    checks: dict[str, Callable[[], Awaitable[None]]] = {
        "broker": _well, "database": bench.database.ping,
    }  # fmt: skip
    crashed: list[str] = []
    registry = CollectorRegistry()
    Counter("tiphys_things", "Things.", registry=registry).inc()

    async def ask(name: str) -> None:
        await checks[name]()

    asked = {name: (lambda name=name: ask(name)) for name in checks}
    well = health.Health(asked, crashed=lambda: ", ".join(crashed))
    health.install_health(app, well, registry)
    async with serving(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as http:
        yield Desk(http, url, checks, pipeline, well, crashed)


@pytest_asyncio.fixture
async def desk(bench: Any) -> AsyncGenerator[Desk]:
    async with desk_of(bench) as found:
        yield found


# --- who may --------------------------------------------------------------------------------------


WRONG = [
    None,
    "",
    "Bearer",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    TOKEN,
    f"Basic {TOKEN}",
    f"Bearer Bearer {TOKEN}",
]


async def test_where_a_token_is_set_nothing_is_told_or_done_without_it(bench: Any) -> None:
    incident = await bench.escalated()
    async with desk_of(bench, token=TOKEN) as desk:
        routes = [
            (method.upper(), path.replace("{incident_id}", incident.id))
            for path, methods in (await desk.get("/api/openapi.json"))["paths"].items()
            for method in methods
        ]
        assert len(routes) >= 12
        for given in WRONG:
            headers = {} if given is None else {"Authorization": given}
            for method, path in routes:
                why = await desk.refused(401, method, path, headers=headers, json=ANN)
                assert "bearer token" in why
                assert incident.id not in why
    assert (await bench.get(incident)).state == State.ESCALATED


async def test_with_the_token_it_answers(bench: Any) -> None:
    async with desk_of(bench, token=TOKEN) as desk:
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {TOKEN}"}
            assert (await desk.http.get("/api/incidents", headers=headers)).status_code == 200
            odd = {"Authorization": f"{scheme} {TOKEN}", "Host": "tiphys.example.org"}
            assert (await desk.http.get("/api/incidents", headers=odd)).status_code == 200


FOREIGN = [
    "evil.example",
    "evil_one.example",
    "127.0.0.1.evil.example",
    "10.0.0.1:80",
    "evil.example:",
    "a b",
    "@localhost",
]


async def test_without_a_token_only_requests_that_name_this_host_are_answered(
    bench: Any, desk: Desk
) -> None:
    incident = await bench.escalated()
    for host in FOREIGN:
        for method, path in (
            ("GET", "/api/incidents"),
            ("POST", f"/api/incidents/{incident.id}/acknowledge"),
            ("GET", "/api/audit/export"),
        ):
            answer = await desk.http.request(method, path, headers={"Host": host}, json=ANN)
            assert answer.status_code in {400, 403}, host
    assert (await bench.get(incident)).state == State.ESCALATED
    for ours in ("localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080"):
        assert (await desk.http.get("/api/incidents", headers={"Host": ours})).status_code == 200


# --- reading --------------------------------------------------------------------------------------


async def test_incidents_are_listed_the_newest_first_and_by_state(bench: Any, desk: Desk) -> None:
    first, second = await bench.open("a"), await bench.escalated("b")
    assert [i["id"] for i in await desk.get("/api/incidents")] == [second.id, first.id]
    only = await desk.get("/api/incidents", state="open")
    assert [i["id"] for i in only] == [first.id]
    both = await desk.get("/api/incidents", state=["open", "escalated"])
    assert len(both) == 2
    assert len(await desk.get("/api/incidents", limit=1)) == 1


async def test_one_incident_is_shown_whole(bench: Any, desk: Desk) -> None:
    incident = await bench.launching()
    view = await desk.get(f"/api/incidents/{incident.id}")
    assert view["incident"]["id"] == incident.id
    assert [a["labels"]["alertname"] for a in view["alerts"]] == ["KubePodCrashLooping"]
    assert {e["id"] for e in view["evidence"]} >= {"ev-1"}
    [attempt] = view["attempts"]
    assert attempt["decision"]["action"] == "restart-pod"
    assert attempt["judgement"]["verdicts"]
    assert attempt["plan"]["target"]["name"] == "cart-1"
    assert attempt["run"]["open"] is True
    assert attempt["workflow"] == attempt["run"]["workflow"]
    assert [r["event"] for r in view["timeline"]] == await bench.events(incident)
    incident_page(view)  # what the terminal makes of it
    short = await desk.get(f"/api/incidents/{incident.id.removeprefix('inc-')[:6]}")
    assert short["incident"]["id"] == incident.id


async def test_what_waits_for_somebody_is_listed(bench: Any, desk: Desk) -> None:
    assert await desk.get("/api/approvals") == []
    incident = await bench.asked()
    [view] = await desk.get("/api/approvals")
    assert view["incident"]["id"] == incident.id
    assert view["attempts"][0]["plan_digest"]


async def test_the_catalogue_tells_rights_and_undo(desk: Desk) -> None:
    entries = {entry["name"]: entry for entry in await desk.get("/api/catalogue")}
    assert {"restart-pod", "rollout-undo", "scale-workload"} <= set(entries)
    for entry in entries.values():
        assert entry["undo"]
        assert entry["rights"]
        Draft202012Validator.check_schema(entry["parameters"])


async def test_the_record_is_read_in_parts(bench: Any, desk: Desk) -> None:
    incident = await bench.proposed()
    await bench.open("another")
    records = await desk.get("/api/audit")
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    assert [r["seq"] for r in await desk.get("/api/audit", after=2, limit=2)] == [3, 4]
    mine = await desk.get("/api/audit", incident=incident.id)
    assert {r["incident_id"] for r in mine} == {incident.id}


async def test_the_export_streams_and_verifies_offline(bench: Any, desk: Desk) -> None:
    async with bench.database.transaction() as tx:
        for number in range(300):
            body = {"number": number, "text": "x" * 2000}
            await bench.audit.append(tx, AuditEvent.DECIDED, actor="t", body=body)
    pieces = 0
    async with desk.http.stream("GET", "/api/audit/export") as answer:
        assert answer.status_code == 200
        assert "content-length" not in answer.headers, "it is not gathered in memory first"
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        text = b""
        async for piece in answer.aiter_raw():
            pieces += 1
            text += piece
    assert pieces > 1
    found = verify(text.decode().splitlines())
    assert (found.records, found.problem) == (300, None)


async def test_dead_letters_are_visible(bench: Any, desk: Desk) -> None:
    assert await desk.get("/api/dead-letters") == []
    async with bench.database.transaction() as tx:
        for number in (1, 2):
            values = {
                "stream_seq": number,
                "reason": "not JSON",
                "payload": f"{{{number}",
                "at": "",
            }
            await tx.execute(insert(dead_letters).values(values))
    found = await desk.get("/api/dead-letters")
    assert [letter["payload"] for letter in found] == ["{2", "{1"]
    assert found[0]["reason"] == "not JSON"
    assert len(await desk.get("/api/dead-letters", limit=1)) == 1


# --- deciding -------------------------------------------------------------------------------------


async def test_a_plan_is_approved_and_the_pipeline_woken(bench: Any, desk: Desk) -> None:
    incident = await bench.asked()
    [view] = await desk.get("/api/approvals")
    seen = view["attempts"][0]["plan_digest"]
    path = f"/api/incidents/{incident.id}/approve"
    why = await desk.refused(409, "POST", path, json={**ANN, "digest": "0" * 64})
    assert "plan has changed" in why
    answer = await desk.http.post(path, json={**ANN, "digest": seen[:12]})
    assert (answer.status_code, answer.json()["state"]) == (200, State.PROPOSED)
    assert desk.pipeline._awake.is_set()
    assert "is proposed" in await desk.refused(409, "POST", path, json=ANN)


async def test_a_plan_is_denied(bench: Any, desk: Desk) -> None:
    incident = await bench.asked()
    answer = await desk.http.post(f"/api/incidents/{incident.id}/deny", json=ANN)
    assert (answer.status_code, answer.json()["state"]) == (200, State.ACKNOWLEDGED)
    assert answer.json()["acknowledged_by"] == "ann"


async def test_an_escalated_incident_is_acknowledged_once(bench: Any, desk: Desk) -> None:
    incident = await bench.escalated()
    path = f"/api/incidents/{incident.id}/acknowledge"
    answer = await desk.http.post(path, json=ANN)
    assert answer.json()["acknowledged_by"] == "ann"
    last = (await bench.records(incident))[-1]
    assert (last.event, last.actor) == (AuditEvent.INCIDENT_MOVED, "ann")
    why = await desk.refused(409, "POST", path, json=ANN)
    assert why == "an incident that is acknowledged cannot acknowledge"


async def test_the_stop_switch_is_pulled_and_recorded(bench: Any, kube: Any) -> None:
    switch = StopSwitch(kube.gateway, "tiphys-stop")
    async with desk_of(bench, stop=switch) as desk:
        assert await desk.get("/api/stop") == {"engaged": False, "reason": ""}
        answer = await desk.http.post("/api/stop", json={"by": "ann", "reason": "big sale"})
        assert answer.json() == {"engaged": True, "reason": "big sale", "incidents": []}
        assert await desk.get("/api/stop") == {"engaged": True, "reason": "big sale"}
        [record] = await bench.records()
        assert (record.event, record.actor) == (AuditEvent.STOP_ENGAGED, "ann")
        kube.door.mode = "away"
        assert (await desk.get("/api/stop"))["engaged"] is None
        why = await desk.refused(503, "POST", "/api/stop", json=ANN)
        assert "Kubernetes" in why
        assert len(await bench.records()) == 1, "nothing claims that it was stopped"


async def test_without_credentials_the_stop_switch_says_so(desk: Desk) -> None:
    assert (await desk.get("/api/stop"))["engaged"] is None
    assert "credentials" in await desk.refused(409, "POST", "/api/stop", json=ANN)


# --- wrong questions ------------------------------------------------------------------------------


async def test_what_does_not_exist_is_404_with_a_sentence(desk: Desk) -> None:
    for path in ("", "/approve", "/deny", "/acknowledge"):
        method = "POST" if path else "GET"
        for wanted in ("inc-nobody", "%", "inc-%25"):
            why = await desk.refused(404, method, f"/api/incidents/{wanted}{path}", json=ANN)
            assert why.startswith("There is no such incident")


NONSENSE: list[Any] = [
    {},
    {"by": ""},
    {"by": "x" * 201},
    {"by": 7},
    {"by": "ann", "reason": "x" * 2001},
    {"by": "ann", "digest": "not hex"},
    {"by": "ann", "unknown": 1},
    [],
    "ann",
]


async def test_a_body_that_makes_no_sense_is_422_and_says_where(bench: Any, desk: Desk) -> None:
    incident = await bench.asked()
    verbs = [f"/api/incidents/{incident.id}/{v}" for v in ("approve", "deny", "acknowledge")]
    for body in NONSENSE:
        for path in (*verbs, "/api/stop"):
            assert "body" in await desk.refused(422, "POST", path, json=body)
    assert (await bench.get(incident)).state == State.AWAITING_APPROVAL


async def test_a_query_that_makes_no_sense_is_422(desk: Desk) -> None:
    for query in ("state=nowhere", "limit=0", "limit=10001", "limit=many", "state=open&state=x"):
        assert "query" in await desk.refused(422, "GET", f"/api/incidents?{query}")


async def test_the_description_is_valid_and_complete(desk: Desk) -> None:
    found = await desk.get("/api/openapi.json")
    assert found["openapi"].startswith("3.1")
    described = {
        (path, method)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
        if operation["description"] and operation["operationId"]
    }
    assert described >= {
        ("/api/incidents", "get"),
        ("/api/incidents/{incident_id}", "get"),
        ("/api/incidents/{incident_id}/approve", "post"),
        ("/api/incidents/{incident_id}/deny", "post"),
        ("/api/incidents/{incident_id}/acknowledge", "post"),
        ("/api/approvals", "get"),
        ("/api/catalogue", "get"),
        ("/api/audit", "get"),
        ("/api/audit/export", "get"),
        ("/api/dead-letters", "get"),
        ("/api/stop", "post"),
    }
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(found)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas, f"{name} is named and not described"


async def test_answers_are_as_described(bench: Any, desk: Desk) -> None:
    incident = await bench.launching()
    found = await desk.get("/api/openapi.json")
    for path in ("/api/incidents", "/api/incidents/{incident_id}", "/api/catalogue", "/api/audit"):
        answer = found["paths"][path]["get"]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"]
        body = await desk.get(path.replace("{incident_id}", incident.id))
        Draft202012Validator({**schema, "components": found["components"]}).validate(body)


# --- health ---------------------------------------------------------------------------------------


async def test_ready_says_what_is_missing_and_alive_does_not_care(desk: Desk) -> None:
    assert await desk.get("/readyz") == {"ready": True, "missing": {}, "degraded": {}}

    async def away() -> None:
        raise BrokerUnavailableError("not connected")

    desk.checks["broker"] = away
    answer = await desk.http.get("/readyz")
    assert answer.status_code == 503
    missing = answer.json()["missing"]
    assert missing == {"broker": "The broker did not acknowledge in time: not connected"}
    assert (await desk.http.get("/healthz")).text == "ok\n"


async def test_what_is_only_shown_does_not_keep_posts_away(desk: Desk) -> None:
    async def parked() -> None:
        raise BrokerUnavailableError("inc-1")

    desk.health.show("incidents", parked)
    desk.health.show("broker", parked)  # it is needed, and it is well
    answer = await desk.http.get("/readyz")
    assert answer.status_code == 200
    assert list(answer.json()["degraded"]) == ["incidents"]


async def test_a_task_that_has_ended_is_death(desk: Desk) -> None:
    desk.crashed.append("intake")
    answer = await desk.http.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "ended: intake\n")


async def test_a_dependency_that_does_not_answer_is_missing(desk: Desk) -> None:
    never = asyncio.Event()

    async def hangs() -> None:
        await never.wait()

    health.CHECK_SECONDS, usual = 0.05, health.CHECK_SECONDS
    try:
        desk.checks["database"] = hangs
        answer = await desk.http.get("/readyz")
    finally:
        health.CHECK_SECONDS = usual
    assert answer.status_code == 503
    assert "no answer within" in answer.json()["missing"]["database"]


async def test_a_check_that_fails_without_a_word_is_named(desk: Desk) -> None:
    async def silent() -> None:
        raise ConnectionResetError

    desk.checks["broker"] = silent
    assert (await desk.http.get("/readyz")).json()["missing"] == {"broker": "ConnectionResetError"}


async def test_metrics_are_served(desk: Desk) -> None:
    answer = await desk.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "tiphys_things_total 1.0" in answer.text

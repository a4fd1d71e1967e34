"""Who may what over real HTTP: tokens, a proxy's header, roles by namespace; and who may not."""

import contextlib
import ipaddress
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr
from sqlalchemy import text

from tiphys.policies.lifecycle import State
from tiphys.policies.people import PersonRole
from tiphys.sandbox.loopback import serving
from tiphys.service import api, pauses_api, wishes_api
from tiphys.service.api_people import Doors, HeaderDoor, role_of
from tiphys.service.people import People
from tiphys.service.people_file import create_token
from tiphys.service.records import AuditEvent
from tiphys.service.roles import Role
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.undos import Undos
from tiphys.service.views import Views
from tiphys.service.wishes import Wishes

API_TOKEN = "the-installations-own-token"
PROXY_SECRET = "only-the-proxy-knows"
WHO = {
    "vera": ("viewer", "*"),
    "olga": ("operator", "shop"),
    "anna": ("approver", "shop"),
    "abel": ("approver", "*"),
    "adam": ("admin", "*"),
    "otto": ("viewer", "other"),
}
MADE = {name: create_token() for name in WHO}


def people_file() -> str:
    lines = ["format: tiphys/people/v1", "people:"]
    for name, (role, namespace) in WHO.items():
        lines += [
            f"  - name: {name}",
            f'    roles: [{{role: {role}, namespaces: ["{namespace}"]}}]',
            f"    identities: {{login: {name}, email: {name}@example.org}}",
            f"    tokens: [{{sha256: {MADE[name][1]}}}]",
        ]
    return "\n".join(lines)


@dataclass
class Time:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    http: httpx2.AsyncClient
    app: FastAPI
    people: People
    file: Path
    time: "Time"

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx2.Response:
        if who:
            headers["Authorization"] = f"Bearer {MADE[who][0] if who in MADE else who}"
        return await self.http.request(method, path, json=body, headers=headers)

    async def status(self, who: str, method: str, path: str, body: Any = None) -> int:
        return (await self.ask(who, method, path, body)).status_code


@contextlib.asynccontextmanager
async def desk_of(
    bench: Any, tmp_path: Path, *, proxies: str = "", stop: Any = None, secret: str = PROXY_SECRET
) -> AsyncGenerator[Desk]:
    file = tmp_path / "people.yaml"
    file.write_text(people_file())
    time = Time()
    people = People(file, clock=time)
    networks = tuple(ipaddress.ip_network(one) for one in proxies.split())
    header = HeaderDoor(people, "X-Forwarded-User", networks, SecretStr(secret) if secret else None)
    app = FastAPI(openapi_url="/api/openapi.json")
    ledger, runs, cases = bench.of(Role.GATEWAY)
    office = api.Office(
        views=Views(ledger.database, ledger.audit, ledger.incidents, cases, runs),
        ledger=ledger,
        approvals=bench.approvals,
        audit=ledger.audit,
        holds=bench.holds,
        run_stops=bench.run_stops,
        undos=Undos(ledger, runs),
        wishes=Wishes(ledger, "sandbox"),
        wake=lambda: None,
        stop=stop,
        token=SecretStr(API_TOKEN),
        doors=Doors(people, header if proxies else None),
    )
    api.install(app, office)
    app.include_router(pauses_api.router)
    app.include_router(wishes_api.router)
    async with serving(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as http:
        yield Desk(http, app, people, file, time)


@pytest_asyncio.fixture
async def desk(bench: Any, tmp_path: Path) -> AsyncGenerator[Desk]:
    async with desk_of(bench, tmp_path) as found:
        yield found


# --- every route ------------------------------------------------------------------------------


def routes(app: Any) -> list[APIRoute]:
    """Every route of ours, also of the routers that were included."""
    found = [route for route in app.routes if isinstance(route, APIRoute)]
    inner = [r.original_router for r in app.routes if hasattr(r, "original_router")]
    return [*found, *(route for router in inner for route in routes(router))]


async def test_every_route_names_the_least_role_it_needs(desk: Desk) -> None:
    described = desk.app.openapi()["paths"]
    assert {route.path for route in routes(desk.app)} == set(described), "none is overlooked"
    named = {(route.path, *sorted(route.methods)): role_of(route) for route in routes(desk.app)}
    assert len(named) >= 18
    assert None not in named.values(), [path for path, role in named.items() if role is None]
    changing = {path for path in named if "POST" in path}
    assert all(named[path] != PersonRole.VIEWER for path in changing)


async def test_a_route_that_names_no_role_is_refused_even_to_an_admin(
    bench: Any, tmp_path: Path
) -> None:
    async with desk_of(bench, tmp_path) as desk:

        @desk.app.get("/api/forgotten")
        async def forgotten(_desk: api.Desk) -> str:  # pyright: ignore[reportUnusedFunction]
            return "told"

        answer = await desk.ask("adam", "GET", "/api/forgotten")
        assert (answer.status_code, "names no role" in answer.text) == (403, True)


def filled(route: APIRoute, incident: str) -> str:
    return route.path.format(incident_id=incident, run="tiphys-x", plan_digest="abc")


async def test_nobody_is_let_in_without_proof_on_loopback_too(bench: Any, desk: Desk) -> None:
    incident = await bench.asked()
    for route in routes(desk.app):
        [method] = route.methods
        path = filled(route, incident.id)
        for given in ("", "nonsense", MADE["adam"][1], MADE["adam"][0][:-1]):
            answer = await desk.ask(given, method, path, {"by": "adam", "reason": "x"})
            assert answer.status_code == 401, (path, given)
            assert incident.id not in answer.text
    assert (await bench.get(incident)).state == State.AWAITING_APPROVAL


async def test_less_than_the_named_role_is_refused_everywhere(bench: Any, desk: Desk) -> None:
    incident = await bench.asked()
    ranks = list(PersonRole)
    for route in routes(desk.app):
        [method] = route.methods
        needed = role_of(route)
        assert needed is not None
        for who, (role, _) in WHO.items():
            if ranks.index(PersonRole(role)) < ranks.index(needed):
                body = {"reason": "x", "scope": "x"}
                answer = await desk.ask(who, method, filled(route, incident.id), body)
                assert answer.status_code == 403, (route.path, who)
    assert (await bench.get(incident)).state == State.AWAITING_APPROVAL


# --- namespaces ---------------------------------------------------------------------------------


async def test_people_are_told_nothing_of_other_peoples_namespaces(bench: Any, desk: Desk) -> None:
    shop = await bench.asked()
    for who, seen in (("vera", 1), ("olga", 1), ("otto", 0)):
        for path in ("/api/incidents", "/api/approvals"):
            found = await desk.ask(who, "GET", path)
            assert len(found.json()) == seen, (who, path)
        status = 200 if seen else 404
        assert await desk.status(who, "GET", f"/api/incidents/{shop.id}") == status
        assert await desk.status(who, "GET", f"/api/audit?incident={shop.id}") == status
    everything = {"vera": 200, "olga": 403, "otto": 403, "adam": 200}
    for path in ("/api/audit", "/api/audit/export", "/api/dead-letters"):
        for who, status in everything.items():
            assert await desk.status(who, "GET", path) == status, (who, path)


async def test_what_names_no_namespace_is_shown_to_those_who_see_all(
    bench: Any, desk: Desk
) -> None:
    incident = await bench.open("SomethingOdd")
    assert await desk.status("vera", "GET", f"/api/incidents/{incident.id}") == 200
    assert await desk.status("olga", "GET", f"/api/incidents/{incident.id}") == 404


async def test_an_action_is_asked_for_by_hand_where_one_is_operator(bench: Any, desk: Desk) -> None:
    wish = {"action": "scale-workload", "target": "deployment/shop/cart", "reason": "a sale"}
    for body, status in (
        (wish | {"target": "deployment/other/cart", "parameters": {"replicas": 4}}, 403),
        (wish | {"target": "node/n1", "action": "cordon-drain-node"}, 403),
        (wish | {"parameters": {"replicas": 4}, "by": "anna"}, 403),
        (wish | {"parameters": {"replicas": 400}}, 409),
        (wish | {"parameters": {"replicas": 4}, "extra": 1}, 422),
        (wish | {"parameters": {"replicas": 4}, "reason": ""}, 422),
        (wish | {"parameters": {f"x{n}": n for n in range(21)}}, 422),
    ):
        assert await desk.status("olga", "POST", "/api/runs", body) == status, body
    assert await bench.rows("incidents") == []
    body = wish | {"parameters": {"replicas": 4}}
    assert await desk.status("otto", "POST", "/api/runs", body) == 403
    made = await desk.ask("olga", "POST", "/api/runs", body)
    assert made.status_code == 200, made.text
    assert made.json()["wants"]["by"] == "olga"
    again = await desk.ask("anna", "POST", "/api/runs", body)
    assert (again.status_code, made.json()["id"] in again.text) == (409, True)
    assert await desk.status("otto", "GET", f"/api/incidents/{made.json()['id']}") == 404
    assert await desk.status("olga", "GET", f"/api/incidents/{made.json()['id']}") == 200


async def test_a_role_counts_only_in_its_namespaces(bench: Any, desk: Desk, target: Any) -> None:
    bench.scout.target = {"namespace_labels": {"tiphys.io/heal": "enabled"}}
    there = await bench.launching("pod research/x", target=target("x", "research"), risk="high")
    assert there.state == State.AWAITING_APPROVAL, there.reason
    assert await desk.status("anna", "POST", f"/api/incidents/{there.id}/approve", {}) == 404
    assert await desk.status("olga", "POST", f"/api/incidents/{there.id}/abort", {}) == 404
    assert (await bench.get(there)).state == State.AWAITING_APPROVAL
    assert await desk.status("abel", "POST", f"/api/incidents/{there.id}/approve", {}) == 200


async def test_holds_are_seen_and_released_where_one_may(bench: Any, desk: Desk) -> None:
    async with bench.database.transaction() as tx:
        for scope in ("namespace:sandbox/shop", "namespace:sandbox/other", "cluster:sandbox"):
            row = {"scope": scope}
            await tx.execute(text("INSERT INTO breakers VALUES (:scope, 'storm', '2026')"), row)
    seen = {h["scope"] for h in (await desk.ask("otto", "GET", "/api/holds")).json()}
    assert seen == {"namespace:sandbox/other", "cluster:sandbox"}
    release = {"scope": "namespace:sandbox/shop", "reason": "over"}
    assert await desk.status("abel", "POST", "/api/holds/release", release) == 403
    assert await desk.status("adam", "POST", "/api/holds/release", release) == 200


# --- names --------------------------------------------------------------------------------------


async def test_nobody_decides_in_anothers_name(bench: Any, desk: Desk) -> None:
    incident = await bench.asked()
    path = f"/api/incidents/{incident.id}/approve"
    answer = await desk.ask("anna", "POST", path, {"by": "adam"})
    assert answer.status_code == 403
    assert "you are anna, not adam" in answer.json()["detail"]
    assert await desk.status("anna", "POST", path, {"by": "Anna"}) == 200
    given = [r for r in await bench.records(incident) if r.event == AuditEvent.APPROVAL_GIVEN]
    assert [r.actor for r in given] == ["anna"]


async def test_the_installations_token_is_one_admin_whatever_it_says(
    bench: Any, desk: Desk
) -> None:
    incident = await bench.asked()
    path = f"/api/incidents/{incident.id}/deny"
    assert await desk.status(API_TOKEN, "POST", path, {"by": "ann", "reason": "x"}) == 200
    assert (await bench.get(incident)).acknowledged_by == "api-token"


async def test_no_token_is_in_a_log_a_record_or_an_answer(
    bench: Any, desk: Desk, capfd: Any
) -> None:
    incident = await bench.asked()
    told = ""
    for who in (*MADE, API_TOKEN, MADE["adam"][0] + "x"):
        for path in (f"/api/incidents/{incident.id}", "/api/audit", "/api/incidents?state=x"):
            answer = await desk.ask(who, "GET", path)
            told += answer.text + str(answer.headers)
        told += (await desk.ask(who, "POST", f"/api/incidents/{incident.id}/deny", {})).text
    desk.file.write_text("no: [")
    desk.time.now += 3
    await desk.ask("adam", "GET", "/api/incidents")
    captured = capfd.readouterr()
    told += (
        captured.out + captured.err + json.dumps([r.model_dump() for r in await bench.records()])
    )
    for token in (API_TOKEN, PROXY_SECRET, *(token for token, _ in MADE.values())):
        assert token not in told


# --- the file goes bad --------------------------------------------------------------------------


async def test_with_a_bad_file_nobody_decides_and_stop_still_works(
    bench: Any, kube: Any, tmp_path: Path
) -> None:
    incident = await bench.asked()
    async with desk_of(bench, tmp_path, stop=StopSwitch(kube.gateway, "tiphys-stop")) as desk:
        desk.file.write_text("no: [")
        desk.time.now += 3
        approve = f"/api/incidents/{incident.id}/approve"
        for who in ("anna", "adam"):
            assert await desk.status(who, "POST", approve, {}) == 403
            assert await desk.status(who, "GET", f"/api/incidents/{incident.id}") == 200
        assert await desk.status("vera", "POST", "/api/stop", {"reason": "x"}) == 403
        assert await desk.status("olga", "POST", "/api/stop", {"reason": "x"}) == 200
        assert (await desk.ask("vera", "GET", "/api/stop")).json()["engaged"] is True


# --- a proxy's header ---------------------------------------------------------------------------

SECRET = {"X-Tiphys-Proxy-Secret": PROXY_SECRET}


async def test_a_trusted_proxy_says_who_it_is(bench: Any, tmp_path: Path) -> None:
    async with desk_of(bench, tmp_path, proxies="127.0.0.0/8 ::1/128") as desk:
        for name in ("vera", "vera@example.org"):
            headers = {"X-Forwarded-User": name, **SECRET}
            assert (await desk.ask("", "GET", "/api/audit", **headers)).status_code == 200
        headers = {"X-Forwarded-User": "otto", **SECRET}
        assert (await desk.ask("", "GET", "/api/audit", **headers)).status_code == 403


REFUSED: list[list[tuple[str, str]]] = [
    [("X-Forwarded-User", "adam")],
    [("X-Forwarded-User", "adam"), ("X-Tiphys-Proxy-Secret", "guessed")],
    [("X-Forwarded-User", "adam"), *([("X-Tiphys-Proxy-Secret", PROXY_SECRET)] * 2)],
    [("X-Forwarded-User", "adam"), ("X-Forwarded-User", "vera"), *SECRET.items()],
    [("X-Forwarded-User", ""), *SECRET.items()],
    [("X-Forwarded-User", "nobody"), *SECRET.items()],
    [("X-Forwarded-User", "adam, vera"), *SECRET.items()],
]


@pytest.mark.parametrize("headers", REFUSED)
async def test_a_proxys_header_that_is_not_whole_is_refused(
    bench: Any, tmp_path: Path, headers: list[tuple[str, str]]
) -> None:
    async with desk_of(bench, tmp_path, proxies="127.0.0.0/8") as desk:
        answer = await desk.http.get("/api/incidents", headers=headers)
        assert answer.status_code == 403, answer.text
        # Nor is it passed over for a token that would do.
        token = ("Authorization", f"Bearer {MADE['adam'][0]}")
        answer = await desk.http.get("/api/incidents", headers=[*headers, token])
        assert answer.status_code == 403, answer.text


async def test_the_header_from_a_strangers_address_is_refused(bench: Any, tmp_path: Path) -> None:
    async with desk_of(bench, tmp_path, proxies="10.1.2.3/32") as desk:
        headers = {"X-Forwarded-User": "adam", **SECRET}
        for who in ("", "adam"):
            answer = await desk.ask(who, "GET", "/api/incidents", **headers)
            assert answer.status_code == 403
            assert "is not taken from 127.0.0.1" in answer.json()["detail"]


async def test_a_token_and_a_header_of_two_people_are_nobodys(bench: Any, tmp_path: Path) -> None:
    async with desk_of(bench, tmp_path, proxies="127.0.0.0/8") as desk:
        headers = {"X-Forwarded-User": "adam", **SECRET}
        assert (await desk.ask("vera", "GET", "/api/incidents", **headers)).status_code == 403
        assert (await desk.ask("adam", "GET", "/api/incidents", **headers)).status_code == 200


async def test_another_site_cannot_act_through_a_browser(bench: Any, tmp_path: Path) -> None:
    incident = await bench.asked()
    async with desk_of(bench, tmp_path, proxies="127.0.0.0/8") as desk:
        headers = {"X-Forwarded-User": "adam", "Sec-Fetch-Site": "cross-site", **SECRET}
        path = f"/api/incidents/{incident.id}/approve"
        assert (await desk.ask("", "POST", path, {}, **headers)).status_code == 403
    assert (await bench.get(incident)).state == State.AWAITING_APPROVAL


# --- holding Tiphys back --------------------------------------------------------------------------


async def test_a_pause_takes_an_operator_of_its_scope_and_ends_by_an_admin_or_its_maker(
    desk: Desk,
) -> None:
    shop, cluster = ({"scope": one, "time": "10m"} for one in ("namespace:shop", "cluster"))
    assert await desk.status("vera", "POST", "/api/pauses", shop) == 403
    assert await desk.status("olga", "POST", "/api/pauses", cluster) == 403, "only in shop"
    other = {"scope": "namespace:other"}
    assert await desk.status("olga", "POST", "/api/pauses", other) == 403
    assert await desk.status("olga", "POST", "/api/pauses", {**shop, "by": "adam"}) == 403
    made = await desk.ask("olga", "POST", "/api/pauses", shop)
    assert (made.status_code, made.json()["by"]) == (200, "olga")
    assert [p["by"] for p in (await desk.ask("vera", "GET", "/api/pauses")).json()] == ["olga"]
    assert (await desk.ask("otto", "GET", "/api/pauses")).json() == [], "he has not that namespace"
    there = "/api/pauses?scope=namespace:shop"
    assert await desk.status("anna", "DELETE", there) == 403, "an approver, and not hers"
    assert await desk.status("olga", "DELETE", there) == 200
    assert await desk.status("olga", "POST", "/api/pauses", shop) == 200
    assert len((await desk.ask("adam", "DELETE", there)).json()) == 1
    assert await desk.status("abel", "POST", "/api/pauses", cluster) == 200


async def test_everybodys_runs_are_stopped_only_by_who_may_act_everywhere(
    bench: Any, kube: Any, tmp_path: Path
) -> None:
    incident = await bench.launching()
    stop = StopSwitch(kube.gateway, "tiphys-stop")
    async with desk_of(bench, tmp_path, stop=stop) as desk:
        whole = {"reason": "wrong call", "runs": True}
        assert await desk.status("olga", "POST", "/api/stop", whole) == 403
        assert kube.store.list("ConfigMap", "tiphys-stop") == []
        assert await desk.status("olga", "POST", "/api/stop", {"reason": "mine"}) == 200
        answer = await desk.ask("abel", "POST", "/api/stop", whole)
        assert answer.json()["incidents"] == [incident.id]
        assert (await desk.ask("abel", "POST", "/api/stop", whole)).json()["incidents"] == []
    told = [(r.event, r.actor) for r in await bench.records() if "stop" in r.event]
    engaged, asked = AuditEvent.STOP_ENGAGED, AuditEvent.RUN_STOP_ASKED
    assert told == [(engaged, "olga"), (engaged, "abel"), (asked, "abel"), (engaged, "abel")]

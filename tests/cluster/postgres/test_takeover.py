"""A replica that dies in the middle is taken over: two of each role, one of each killed in turn."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fleet import Fleet, Replica, until
from places import Place

from tiphys.sandbox.store import AdmissionRequest, ApiError
from tiphys.service.playing import Play
from tiphys.service.roles import Role

TAKEN_OVER_SECONDS = 30.0
HOLDER = (
    "SELECT leases.holder FROM leases JOIN incidents ON incidents.id = leases.resource "
    "WHERE incidents.state = ANY(%s) AND leases.expires_at > "
    "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
)


class Deaths:
    """Finds out who holds an incident, kills it, and tells how long nobody went on."""

    def __init__(self, fleet: Fleet, place: Place) -> None:
        self.fleet, self.place = fleet, place
        self.processes: dict[str, int] = {}

    async def learn(self) -> None:
        """Read from the record which process has which name among the lease holders."""
        started = await self.fleet.records("service_started")
        self.processes = {r["body"]["holder"]: r["body"]["process"] for r in started}

    def holder(self, *states: str) -> str | None:
        """Who holds an incident in one of these states now."""
        found = self.place.ask(self.place.superuser_here, HOLDER, list(states))
        return found[0][0] if found else None

    def replica(self, holder: str) -> Replica:
        """Its process."""
        pid = self.processes[holder]
        everyone = (one for some in self.fleet.replicas.values() for one in some)
        return next(one for one in everyone if one.pid == pid)

    def since(self, after: int) -> list[tuple[int, str, float]]:
        """Records after a number: number, event, seconds of their time."""
        return self.place.ask(
            self.place.superuser_here,
            "SELECT seq, event, extract(epoch FROM at::timestamptz)::float FROM audit "
            "WHERE seq > %s AND event NOT LIKE 'alert%%' ORDER BY seq",
            after,
        )

    def last(self) -> int:
        """The number of the last record."""
        return self.place.ask(self.place.superuser_here, "SELECT max(seq) FROM audit")[0][0]

    async def went_on(self, after: int, died: float, event: str) -> float:
        """Wait until somebody else has written an event; gives the seconds since the death."""

        async def written() -> Any:
            return next((at for _, what, at in self.since(after) if what == event), None)

        at = await until(written, f"{event} after a death", TAKEN_OVER_SECONDS + 60)
        return at - died


@pytest.mark.timeout(600)
async def test_each_role_is_killed_in_turn_and_the_incident_ends_right(
    fleet_of: Callable[..., Fleet], place: Place
) -> None:
    async with fleet_of("overload", replicas=2) as fleet:
        deaths = Deaths(fleet, place)
        await deaths.learn()
        stage = Play(fleet)  # type: ignore[arg-type]
        took: dict[str, float] = {}
        at_admission = asyncio.Event()

        def on_create(request: AdmissionRequest) -> None:
            """The launcher's intent is on the disk, and its Workflow is not made."""
            creates = request.kind == "Workflow" and request.operation == "CREATE"
            if creates and not at_admission.is_set():
                at_admission.set()
                holder = deaths.holder("launching")
                assert holder is not None
                took["launcher last"] = deaths.last()
                took["launcher died"] = time.time()
                deaths.replica(holder).kill()
                raise ApiError(500, "InternalError", "the launcher is dead, nobody reads this")

        fleet.world.store.admission.append(on_create)

        # The gateway dies when Alertmanager is about to post; the other one takes the posts.
        first, second = fleet.replicas[Role.GATEWAY]
        fleet.world.prometheus.slow = 1.0  # so that an investigation lasts
        first.kill()
        await stage.strike()
        fleet.point_webhook_at(second)

        async def investigating() -> Any:
            return deaths.holder("investigating")

        holder = await until(investigating, "an investigation")
        agent = deaths.replica(holder)
        assert agent.role is Role.AGENTS
        after, died = deaths.last(), time.time()
        agent.kill()
        fleet.world.prometheus.slow = 0.0
        took["agents"] = await deaths.went_on(after, died, "decided")

        async with asyncio.timeout(120):
            await at_admission.wait()
        launched = await deaths.went_on(
            int(took["launcher last"]), took["launcher died"], "workflow_created"
        )
        took["launcher"] = launched

        summary = await stage.finish(limit=200)
        assert summary.complaints == []
        for role in ("agents", "launcher"):
            assert took[role] < TAKEN_OVER_SECONDS, took
        intents = Counter(r["incident_id"] for r in await fleet.records("launch_intended"))
        assert list(intents.values()) == [1], "nothing is decided twice"
        workflows = fleet.world.store.list("Workflow", "tiphys-actions")
        assert len(workflows) == 1, "and nothing started twice"
        print({role: round(took[role], 1) for role in ("agents", "launcher")})  # noqa: T201


@pytest.mark.timeout(600)
async def test_a_broker_that_dies_and_comes_back_loses_no_alert(
    fleet_of: Callable[..., Fleet], nats: Any
) -> None:
    async with fleet_of("overload") as fleet:
        nats.kill()
        await Play(fleet).strike()  # type: ignore[arg-type]
        gateway = fleet.one(Role.GATEWAY)

        async def unready() -> bool:
            answer = await fleet.http.get(f"{gateway.url}/readyz")
            return answer.status_code == 503 and "broker" in answer.json()["missing"]

        await until(unready, "a gateway that says the broker is away")
        nats.start()
        summary = await Play(fleet).finish(limit=200)  # type: ignore[arg-type]
        assert summary.complaints == []

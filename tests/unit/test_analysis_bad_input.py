"""What the analysis agent says where answers are missing, late, spoilt or too many.

Missing is never taken for healthy: it is named, and nothing is called silent beside it.
"""

import asyncio
import json
import math
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop_metrics import END, NOW, SERVICES, Shop, deployment, released, shop, stepped

from tiphys.agents.asking import MAX_QUERIES, Asking
from tiphys.agents.neighbourhood import window_around
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import Series


def analysis_of(facts: dict[str, Any]) -> dict[str, Any]:
    found = facts["analysis"]
    json.dumps(found, allow_nan=False)
    return found


async def test_a_kind_that_is_not_answered_is_named_and_nothing_is_called_silent() -> None:
    world = shop()
    world.silent = lambda query: "workload:.+" in query
    facts, notes = await world.analysed()
    found = analysis_of(facts)
    assert found["silent"] is False
    assert any("recording rules of workloads: Prometheus did not answer" in u
               for u in found["unseen"])  # fmt: skip
    assert any(n.startswith("not seen, so not known to be healthy") for n in notes)
    assert world.unseen == {}, "a decision may do without the neighbours"


async def test_the_affected_objects_own_series_are_what_a_decision_must_not_do_without() -> None:
    world = shop()
    world.silent = lambda query: "shop_slow" in query
    await world.analysed()
    assert any("the alert's expression could not be seen" in u for u in world.unseen["analysis"])


async def test_a_prometheus_that_answers_nothing_leaves_nothing_claimed() -> None:
    world = shop(slow={"front": 12})
    world.silent = lambda _: True
    facts, _ = await world.analysed()
    found = analysis_of(facts)
    assert found["silent"] is False
    assert not any(c["established"] for c in found["causes"])
    assert len(found["unseen"]) >= 10
    assert world.unseen["analysis"]


async def test_changes_that_cannot_be_listed_leave_it_open_what_a_release_did() -> None:
    world = shop(slow={"front": 12})
    world.objects += released("front", 6)
    world.cluster_silent = True
    facts, _ = await world.analysed()
    found = analysis_of(facts)
    assert "began_with_release" not in found
    assert "release_innocent" not in found
    assert found["silent"] is False
    assert any("ReplicaSets of shop: Kubernetes answered 403" in u for u in found["unseen"])


async def test_no_metrics_of_the_affected_service_are_not_its_health() -> None:
    world = shop()
    world.objects.append(deployment("payment"))
    facts, _ = await world.analysed(deployment="payment")
    found = analysis_of(facts)
    assert found["silent"] is False
    assert "payment: no series of its own were found" in found["unseen"]


async def test_an_answer_that_is_too_late_is_missing_and_the_others_count() -> None:
    world = Shop()
    world.slow = lambda query: 60.0 if query == "late" else 0.0
    book = Notebook(lambda: NOW)
    ask = Asking(world, world, book, window_around(NOW, NOW), 1.0)
    answered: list[object] = []

    async def read() -> None:
        async def one(query: str) -> None:
            answered.append(await ask.range(query, query))

        await asyncio.gather(one("up"), one("late"))

    async with asyncio.timeout(45):
        await ask.in_time(read())
    assert answered == [[]]
    assert ask.missing == {"late": "no answer in 1 s"}


@pytest.mark.parametrize(
    "shift", [pytest.param(7200, id="ahead"), pytest.param(-90_000, id="behind")]
)
async def test_points_of_another_time_are_said_to_be_and_prove_nothing(shift: float) -> None:
    world = shop(slow={"front": 12})

    def elsewhere(_: str, every: Sequence[Series]) -> list[Series]:
        return [Series(s.labels, [(t + shift, v) for t, v in s.points]) for s in every]

    world.spoil = elsewhere
    facts, _ = await world.analysed()
    found = analysis_of(facts)
    assert found["silent"] is False
    assert not any(c["established"] for c in found["causes"])
    said = " ".join(found["unseen"])
    assert "front latency: no data in the time looked at" in said or "no readable series" in said
    assert not any(k.startswith("cpu_of_limit") for k in facts["metrics"]) or shift > 0


async def test_an_alert_from_a_clock_that_is_ahead_is_looked_at_as_of_now() -> None:
    world = shop(slow={"front": 12})
    world.starts = NOW + timedelta(hours=3)
    facts, _ = await world.analysed()
    assert analysis_of(facts)["causes"][0]["component"] == "front"
    assert analysis_of(facts)["onset_minutes"] >= 11


async def test_the_same_series_of_two_exporters_is_one() -> None:
    world = shop(slow={"front": 12})

    def twice(_: str, every: Sequence[Series]) -> list[Series]:
        return [*every, *(Series({**s.labels, "prometheus": "b"}, s.points) for s in every)]

    alone, _ = await shop(slow={"front": 12}).analysed()
    world.spoil = twice
    facts, _ = await world.analysed()
    once, both = (analysis_of(f)["causes"] for f in (alone, facts))
    assert [c["component"] for c in once] == [c["component"] for c in both]


async def test_a_counter_that_begins_anew_is_no_fall_and_no_rise() -> None:
    world = shop()
    for name in SERVICES:
        labels = {"namespace": "shop", "pod": f"{name}-1abcdef-xyz12", "container": "app"}
        world.forget("container_cpu_usage_seconds_total", labels)
        values = [(i % 37) * 9.0 for i in range(241)]
        start = END - 7200
        world.tsdb.extend("container_cpu_usage_seconds_total", labels, start, 30, values)
    facts, _ = await world.analysed()
    assert not any(c["established"] for c in analysis_of(facts)["causes"])


async def test_a_call_graph_with_cycles_has_an_end() -> None:
    world = shop(slow={"front": 12, "cart": 12, "stock": 13})
    ends = {
        "source_workload": "stock",
        "source_workload_namespace": "shop",
        "destination_workload": "front",
        "destination_workload_namespace": "shop",
    }
    world.counter("istio_requests_total", {**ends, "reporter": "source"}, lambda _: 3)  # fmt: skip
    world.objects += released("stock", 14)
    facts, _ = await world.analysed()
    assert analysis_of(facts)["causes"][0]["component"] == "stock"


async def test_of_ten_thousand_series_the_affected_ones_are_read_and_the_rest_is_named() -> None:
    world = shop(slow={"front": 12, "cart": 12, "stock": 13})
    world.objects += released("stock", 14)
    flat = [(END - 30 * i, 0.2) for i in range(180, -1, -1)]

    def crowded(query: str, every: Sequence[Series]) -> Sequence[Series]:
        if "workload:.+" not in query or "deployment=~" in query:
            return every
        crowd = [
            Series({"__name__": "workload:http_request_duration_seconds:p95",
                    "namespace": "shop", "deployment": f"w{i}"}, flat)
            for i in range(10_000)
        ]  # fmt: skip
        return [*crowd, *every]

    world.spoil = crowded
    facts, _ = await world.analysed()
    found = analysis_of(facts)
    assert found["causes"][0]["component"] == "stock"
    assert any("500 series or more, so only those around front, cart, stock" in u
               for u in found["unseen"])  # fmt: skip
    assert found["silent"] is False
    assert len(world.asked) <= MAX_QUERIES + 10


async def test_the_search_does_not_hold_up_the_event_loop() -> None:
    """Some 2,400 signals: measured is what the loop's own thread computes between two turns."""
    world = shop()
    points = [(END - 60 * i, 0.2 + 0.001 * (i % 7)) for i in range(90, -1, -1)]
    asked = {"container_cpu", "container_memory", "increase(", "status_replicas", "workload:.+"}

    def crowded(query: str, every: Sequence[Series]) -> Sequence[Series]:
        if not any(a in query for a in asked) or "owner_kind" not in query + "owner_kind" * (
            "workload:.+" in query or "replicas_available" in query
        ):
            return every
        return [
            *every,
            *(
                Series({"__name__": "workload:cpu_utilisation:ratio", "namespace": "shop",
                        "deployment": f"w{i}", "owner_kind": "StatefulSet",
                        "owner_name": f"w{i}"}, points)
                for i in range(480)
            ),
        ]  # fmt: skip

    world.spoil = crowded
    longest, running = 0.0, True
    engine = world.range

    async def elsewhere(*args: Any) -> Any:
        # The engine of the test is Python, too: it is not what is measured.
        return await asyncio.to_thread(lambda: asyncio.run(engine(*args)))

    world.range = elsewhere  # type: ignore[method-assign]

    async def watch() -> None:
        nonlocal longest
        while running:
            started = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - started)

    watching = asyncio.create_task(watch())
    facts, _ = await world.analysed()
    running = False
    await watching
    assert analysis_of(facts)["causes"] == []
    assert longest < 0.1


BAD = st.sampled_from(["nan", "inf", "gone", "negative", "huge", "gap", "reversed", "empty"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BAD, min_size=1, max_size=3), st.integers(0, 60), st.integers(1, 90))
def test_whatever_the_points_are_there_is_an_answer_that_json_can_hold(
    bad: list[str], first: int, length: int
) -> None:
    def spoilt(_: str, every: Sequence[Series]) -> list[Series]:
        return [Series(s.labels, _spoil(list(s.points), bad, first, length)) for s in every]

    world = shop(slow={"front": 12})
    world.spoil = spoilt
    facts, notes = asyncio.run(world.analysed())
    found = analysis_of(facts)
    assert notes
    json.dumps(list(world.evidence.values()), allow_nan=False)
    if first == 0 and length >= 90 and set(bad) & {"nan", "gone", "gap", "empty"}:
        assert found["silent"] is False


def _spoil(
    points: list[tuple[float, float]], bad: list[str], first: int, length: int
) -> list[tuple[float, float]]:
    part = slice(first, first + length)
    for one in bad:
        hit = points[part]
        changed = {
            "nan": [(t, math.nan) for t, _ in hit],
            "inf": [(t, math.inf) for t, _ in hit],
            "negative": [(t, -v) for t, v in hit],
            "huge": [(t, v * 1e300) for t, v in hit],
            "reversed": hit[::-1],
        }.get(one, [])
        points = [] if one == "empty" else [*points[: part.start], *changed, *points[part.stop :]]
    return points


def test_the_worlds_services_are_the_ones_asked_about() -> None:
    assert Shop().objects == []
    assert stepped(1, 2, 5)(-5) == 2

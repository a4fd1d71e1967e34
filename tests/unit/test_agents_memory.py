"""Whose memory ran out, and whether it was given more before; and what is answered then."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.agents.memory_facts import memory_facts
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Case, Findings
from tiphys.policies.model import Alert, Json

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
Obj = dict[str, Any]


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def owner(limit: str | None, minutes: float = 5000) -> Obj:
    """Give a Deployment or a ReplicaSet that was made so long ago."""
    resources = {"limits": {"memory": limit}} if limit else {}
    containers = [{"name": "app", "resources": resources}, {"name": "side"}]
    return {
        "metadata": {"creationTimestamp": ago(minutes)},
        "spec": {"template": {"spec": {"containers": containers}}},
    }


def pod(name: str = "app", reason: str = "OOMKilled", minutes: float = 2) -> Obj:
    how = {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": ago(minutes)}}
    return {"status": {"containerStatuses": [{"name": name, "state": {}, "lastState": how}]}}


def test_the_one_container_that_was_killed_is_named_with_its_limit() -> None:
    assert memory_facts(
        owner("500M"), [owner("500M")], [pod(), pod(), pod("side", "Error")], NOW
    ) == {
        "container": "app",
        "limit_mib": 476,
        "killed_pods": 2,
        "raised_minutes": -1.0,
        "raised_lately": False,
    }
    assert memory_facts(owner(None), [], [pod()], NOW)["limit_mib"] == 0


@pytest.mark.parametrize(
    "pods", [[], [pod(reason="Error")], [pod(), pod("side")], [pod(minutes=61)]]
)
def test_nothing_is_said_where_none_or_several_were_killed_or_long_ago(pods: list[Obj]) -> None:
    assert memory_facts(owner("1Gi"), [owner("1Gi")], pods, NOW) == {}


@pytest.mark.parametrize(
    ("history", "minutes", "lately"),
    [
        ([owner("2Gi", 90), owner("1Gi", 9000)], 90, True),
        ([owner("2Gi", 90), owner("2Gi", 300), owner("1Gi", 9000)], 300, True),
        ([owner("2Gi", 10081), owner("1Gi", 20000)], 10081, False),
        ([owner("1Gi", 90), owner("2Gi", 9000)], -1, False),
        ([owner("2Gi", 90), owner(None, 9000)], -1, False),
        ([owner("2Gi", 90)], -1, False),
    ],
)
def test_a_limit_that_was_raised_lately_is_seen(
    history: list[Obj], minutes: float, lately: bool
) -> None:
    found = memory_facts(history[0], history, [pod()], NOW)
    assert (found["raised_minutes"], found["raised_lately"]) == (minutes, lately)


def killed(alert: str, memory: dict[str, Json], **rollout: Json) -> Findings:
    """Give what the agents find where every pod of a Deployment is killed for its memory."""
    counts = ("ready", "unready", "crash", "config", "image", "unschedulable", "newest_ready",
              "older_failing", "ready_since")  # fmt: skip
    facts: dict[str, Json] = {
        "resolution": {"found": True, "ambiguous": False},
        "workload": {"kind": "Deployment", "name": "cart", "paused": False},
        "pods": {"total": 2, "failing": 2, "newest_failing": 2, "out_of_memory": 2}
        | dict.fromkeys(counts, 0),
        "rollout": {"previous_revision": 1, "previous_healthy": True, "completed": True}
        | {"recent": False, "in_progress": False, "stuck": False, **rollout},
        "pod": {"name": "cart-1", "container": "app", "trouble": "out_of_memory", "exit_code": 137}
        | {"ended_because": "OOMKilled", "restarts": 9, "controlled_by": "ReplicaSet"},
        "memory": memory,
        "garbage": {},
        "node": {},
    }
    firing = Alert.model_validate(
        {
            "id": "a",
            "cluster": "c",
            "fingerprint": "f",
            "status": "firing",
            "starts_at": NOW,
            "labels": {"alertname": alert},
            "received_at": NOW,
        }
    )
    return Findings(Case("i", 1, "c", True, "s", [firing], ()), facts, {}, [])


MEMORY: dict[str, Json] = {
    "container": "app",
    "limit_mib": 301,
    "killed_pods": 2,
    "raised_minutes": -1.0,
    "raised_lately": False,
}


@pytest.mark.parametrize("alert", ["KubePodCrashLooping", "KubePodNotReady"])
async def test_memory_that_runs_out_is_raised_once_and_not_where_it_leaks(alert: str) -> None:
    books = Playbooks.load()
    choice = await books.decide(killed(alert, MEMORY))
    assert (choice.answer, choice.action) == (Answer.ACT, "raise-memory-limit"), choice
    assert choice.parameters == {"container": "app", "limit_mib": 451}
    leaking = MEMORY | {"raised_minutes": 3000.0, "raised_lately": True}
    choice = await books.decide(killed(alert, leaking))
    assert choice.answer is Answer.ESCALATE
    assert "looks like a leak" in choice.reason
    for unfit in ({}, MEMORY | {"limit_mib": 0}, MEMORY | {"limit_mib": 40000}):
        assert (await books.decide(killed(alert, unfit))).answer is Answer.ESCALATE
    undone = await books.decide(killed(alert, MEMORY, recent=True))
    assert undone.action == "rollout-undo"

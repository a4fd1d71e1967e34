"""Ends pods without a farewell, and sees in the database who took over what they held."""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from bed import Bed
from kubectl import wait


@dataclass(frozen=True)
class Held:
    """One incident as the database has it."""

    id: str
    state: str
    holder: str
    """Which process worked on it last: its pod's name and a few digits."""
    token: int
    """Rises with every claim."""


class Database:
    """The tables, read with the owner's rights."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def held(self, subject: str) -> Held | None:
        """Read the newest incident about an object, and who has its lease."""
        query = """
            SELECT i.id, i.state, coalesce(l.holder, ''), coalesce(l.token, 0)
            FROM incidents i LEFT JOIN leases l ON l.resource = i.id
            WHERE i.subject = %s ORDER BY i.opened_at DESC LIMIT 1
        """
        row = self._connection.execute(query, [subject]).fetchone()
        return Held(*row) if row else None

    def wait_for(self, subject: str, states: Sequence[str], seconds: float) -> Held:
        """Wait, looking often, until an incident is in one of these states under a lease."""
        until = time.monotonic() + seconds
        while True:
            found = self.held(subject)
            if found and found.state in states and found.holder:
                return found
            if time.monotonic() > until:
                raise AssertionError(
                    f"waited {seconds:.0f} s for {subject} to be {states}: {found}"
                )
            time.sleep(0.02)


@dataclass(frozen=True)
class Kill:
    """One death in the middle of an incident."""

    pod: str
    at: datetime
    incident: str
    taken_over: float
    """Seconds until somebody else worked on the incident."""


def kill(bed: Bed, namespace: str, pod: str) -> datetime:
    """End a pod without a grace period; give when it was asked for."""
    at = datetime.now(UTC)
    bed.kubectl("delete", "pod", pod, "-n", namespace, "--force", "--grace-period=0")
    return at


def pod_of(holder: str) -> str:
    """Name the pod of a lease's holder."""
    return holder.rpartition("-")[0]


def pods(bed: Bed, namespace: str, **labels: str) -> list[str]:
    """Name the pods with these labels."""
    chosen = ",".join(f"app.kubernetes.io/{key}={value}" for key, value in labels.items())
    return [one["metadata"]["name"] for one in bed.kubectl.every("pods", namespace, chosen)]


def kill_holder(bed: Bed, subject: str, state: str, seconds: float) -> Kill:
    """Kill whoever works on an incident in a state, and see another hand take it."""
    with contextlib.closing(Database(bed.database)) as database:
        found = database.wait_for(subject, (state,), seconds)
        at = kill(bed, "tiphys-system", pod_of(found.holder))

        def other() -> Held | None:
            now = database.held(subject)
            same = now is None or pod_of(now.holder) == pod_of(found.holder)
            return None if same else now

        taken = wait(f"another pod to work on {subject}", other, 60)
    assert taken is not None
    assert taken.token > found.token
    took = (datetime.now(UTC) - at).total_seconds()
    return Kill(pod_of(found.holder), at, found.id, took)


def kill_controller(bed: Bed, subject: str, seconds: float) -> Kill:
    """Kill Argo's controller while an incident's Workflow runs."""
    with contextlib.closing(Database(bed.database)) as database:
        running = database.wait_for(subject, ("running",), seconds)
    every = [one["metadata"]["name"] for one in bed.kubectl.every("pods", "tiphys-argo")]
    (controller,) = [name for name in every if "workflow-controller" in name]
    return Kill(controller, kill(bed, "tiphys-argo", controller), running.id, 0)


def next_record(view: dict[str, Any], at: datetime) -> float:
    """Give the seconds from a time to an incident's next record."""
    later = [datetime.fromisoformat(one["at"]) for one in view["timeline"]]
    after = sorted(one for one in later if one > at)
    assert after, f"nothing was recorded after {at}: {json.dumps(view['timeline'][-1])[:500]}"
    return (after[0] - at).total_seconds()

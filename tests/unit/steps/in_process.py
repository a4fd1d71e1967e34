"""A cluster in this process, without a server or a clock of its own: for steps in milliseconds."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

from tiphys.policies.model import Change, Check, DecidedBy, Json, Object, Plan, Target
from tiphys.policies.plan import short_digest
from tiphys.sandbox.api_error import ApiError
from tiphys.sandbox.patches import PatchType
from tiphys.sandbox.store import Store
from tiphys.workflow_templates.action import Report, Run
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Cluster, Conflict, Connection, Exists, Gone

Obj = dict[str, Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class InProcess(Cluster):
    """The client's calls, answered from a store; notes each write of more than an Event."""

    def __init__(self, store: Store) -> None:
        super().__init__(Connection("", Path("/dev/null"), None), "")
        self.store = store
        self.written: list[str] = []
        self.before: dict[int, Callable[[], Any]] = {}
        """What happens before the n-th write."""
        self.after: dict[int, Callable[[], Any]] = {}
        """What happens once the n-th write is done."""
        self.claimed: list[Callable[[], Any]] = []
        """What happens once the next Event is there."""
        self.seen: dict[str, list[Callable[[], Any]]] = {}
        """By kind: what happens once one was read, and before that is judged, in this order."""

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """Read one object."""
        found = self.store.find(kind, namespace, name)
        if meanwhile := self.seen.get(kind):
            meanwhile.pop(0)()
        if found is None:
            raise Gone(f"{api_version} {kind} {name}")
        return found

    def list(
        self, api_version: str, kind: str, namespace: str, field_selector: str = ""
    ) -> Sequence[Object]:
        """List the objects of a namespace, or of all."""
        del api_version
        return self.store.list(kind, namespace, field_selector=field_selector)

    def create_event(self, event: Object) -> None:
        """Create an Event."""
        try:
            self.store.create(cast("Obj", event))
        except ApiError as error:
            raise Exists(str(error)) from error
        if self.claimed:
            self.claimed.pop()()

    def patch(self, obj: Object, operations: Sequence[Json]) -> None:
        """Patch exactly the object that was read."""
        self._patch(obj, operations, ("uid", "resourceVersion"))

    def patch_node(self, node: Object, operations: Sequence[Json]) -> None:
        """Patch exactly this node."""
        self._patch(node, operations, ("uid",))

    def _patch(self, obj: Object, operations: Sequence[Json], fences: Sequence[str]) -> None:
        meta, kind = cast("dict[str, str]", obj["metadata"]), str(obj["kind"])
        tests = [{"op": "test", "path": f"/metadata/{k}", "value": meta[k]} for k in fences]
        where = kind, meta.get("namespace", ""), meta["name"]
        self.before.pop(len(self.written) + 1, lambda: None)()
        try:
            self.store.patch(*where, [*tests, *operations], PatchType.JSON, manager="tiphys")
        except ApiError as error:
            raise Conflict(str(error)) from error
        self.written.append(f"{kind} {meta['name']}")
        self.after.pop(len(self.written), lambda: None)()


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.moment = NOON
        self.meanwhile: list[Callable[[], Any]] = []
        """What happens while the next of them is waited for."""

    def now(self) -> datetime:
        """Give the time."""
        return self.moment

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.moment += timedelta(seconds=seconds)
        if self.meanwhile:
            self.meanwhile.pop()()


def plan_of(action: str, target: Obj, changes: Sequence[Change] = (), **parameters: Any) -> Plan:
    """Give a plan for an object."""
    meta = target["metadata"]
    return Plan(
        incident="inc-1",
        attempt=1,
        action=action,
        version=find(action).version,
        target=Target(
            cluster="c",
            api_version=target["apiVersion"],
            kind=target["kind"],
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            uid=meta["uid"],
        ),
        parameters=parameters,
        changes=tuple(changes),
        check=Check(hold_seconds=1),
        policy="test",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )


def run_of(plan: Plan, store: Store, clock: Clock | None = None) -> Run:
    """Give a run of a plan, as its pod would have it."""
    clock = clock or Clock()
    return Run(
        plan=plan,
        digest=short_digest(plan),
        not_after=NOON + timedelta(minutes=10),
        cluster=InProcess(store),
        metrics=None,
        now=clock.now,
        sleep=clock.sleep,
    )


def held_up(act: Callable[[Run], Report], run: Run, nth: int = 1) -> Callable[[], None]:
    """Begin an act, hold it up just before its n-th write, and give what lets it go on to its end.

    It has left its claim and seen the door open.
    """
    there, on = Event(), Event()

    def wait() -> None:
        there.set()
        assert on.wait(5)

    cluster = cast("InProcess", run.cluster)
    cluster.before[nth] = wait
    thread = Thread(target=act, args=[run], daemon=True)
    thread.start()
    assert there.wait(5), "it never came to write"

    def go_on() -> None:
        on.set()
        thread.join(5)
        assert len(cluster.written) >= nth, "its write was refused"

    return go_on

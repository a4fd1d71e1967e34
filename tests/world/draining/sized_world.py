"""A pool of three machines on which nothing runs, whose size is changed against a live API.

No machine provider works here: machines come and go when a test says so.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from draining_world import NS, Obj, Watched, World
from test_steps_replacing import VERSION, Pool, watched

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import short_digest
from tiphys.sandbox import installation
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Report, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Connection
from tiphys.workflow_templates.cluster_api import DELETE_FIRST

LAST = "worker-3"
"""The one that goes: the newest of three that are all empty."""
NODE_READ, NODE_WRITE = f"GET /api/v1/nodes/{LAST}", f"PATCH /api/v1/nodes/{LAST}"
MACHINES = f"/apis/{VERSION}/namespaces/{NS}/machines/{LAST}"
SIZE_WRITE = "PUT /apis/cluster.x-k8s.io"


class DiedError(Exception):
    """The step's process ended here."""


def dies() -> None:
    raise DiedError


def nothing() -> None:
    return None


class Sized(Pool):
    """The three nodes as a pool of machines on which nothing runs; one action resizes it."""

    def __init__(self, world: World, action: str) -> None:
        super().__init__(world)
        self.action = action

    def make(self) -> None:
        super().make()
        pool = self.group()
        notes = {"tiphys.io/pool-min-size": "1", "tiphys.io/pool-max-size": "6"}
        pool["metadata"]["annotations"] = notes
        self.world.store.update(pool)

    def group(self) -> Obj:
        return self.world.store.get("MachineDeployment", NS, "gpus")

    def resize(self, size: int, **status: Any) -> None:
        """Say that the pool has so many machines, and wants as many."""
        pool = self.group()
        pool["spec"]["replicas"] = size
        self.world.store.update(pool)
        self.tell(size, **status)

    def tell(self, size: int, **status: Any) -> None:
        """Let its controller say that there are so many machines, all of them well."""
        pool = self.group()
        counts = ("replicas", "readyReplicas", "upToDateReplicas")
        pool["status"] |= {**dict.fromkeys(counts, size), **status}
        self.world.store.update(pool, subresource="status")

    @property
    def size(self) -> int:
        return self.group()["spec"]["replicas"]

    def last(self) -> Obj:
        return self.world.store.get("Machine", NS, LAST)

    @property
    def chosen(self) -> str | None:
        """What the newest machine says of going first."""
        return (self.last()["metadata"].get("annotations") or {}).get(DELETE_FIRST)

    def note(self, kind: str = "Machine", **notes: str | None) -> None:
        """Annotate the newest machine, or its node; keys in short."""
        body = {{"first": DELETE_FIRST, "run": mark.ANNOTATION}[k]: v for k, v in notes.items()}
        space = NS if kind == "Machine" else ""
        self.world.store.patch(kind, space, LAST, {"metadata": {"annotations": body}})

    def cordon(self, value: bool | None = True) -> None:
        self.world.change_node({"spec": {"unschedulable": value}}, LAST)

    @property
    def closed(self) -> bool:
        return self.world.node(LAST)["spec"].get("unschedulable", False)

    def job(self) -> None:
        """Bring a pod to the newest machine's node."""
        self.world.store.create(
            {"kind": "Pod", "metadata": {"name": "train", "namespace": NS},
             "spec": {"nodeName": LAST, "containers": [{"name": "main", "image": "train:1"}]}}
        )  # fmt: skip

    def come(self) -> None:
        """Let a fourth machine come, with its node."""
        self.world.store.create(installation.nodes(4)[-1])
        self.make_machine("worker-4", self.last()["metadata"]["ownerReferences"][0])

    def remove(self) -> None:
        """Take the newest machine away at once."""
        self.world.store.delete("Machine", NS, LAST)
        machine = self.last()
        machine["metadata"]["finalizers"] = []
        self.world.store.update(machine)

    def anew(self, kind: str) -> None:
        """Let another object have taken the name of the newest machine, or of its node."""
        old = self.last() if kind == "Machine" else self.world.node(LAST)
        if kind == "Machine":
            self.remove()
        else:
            self.world.store.delete("Node", "", LAST)
        self.world.store.create(
            {**old, "metadata": {**old["metadata"], "uid": "", "finalizers": []}}
        )

    def resizing(self, size: int) -> Run:
        """Plan another size, and give a run of it with the action's own rights."""
        action, pool = find(self.action), self.group()
        related = {r.kind: self.world.store.list(r.kind, "") for r in action.reads}
        typed = action.parameters.model_validate({"replicas": size})
        plan = Plan(
            incident="inc-3",
            attempt=1,
            action=self.action,
            version=action.version,
            target=Target(
                cluster="c", api_version=VERSION, kind="MachineDeployment", namespace=NS,
                name="gpus", uid=pool["metadata"]["uid"],
            ),
            parameters=typed.model_dump(mode="json"),
            changes=action.changes(pool, related, typed),
            check=Check(hold_seconds=1),
            policy="test",
            evidence_hash="0" * 64,
            decided_by=DecidedBy(reasoner="human"),
        )  # fmt: skip
        return self.again(plan)

    def again(self, plan: Plan) -> Run:
        """Give one more run of the plan's steps, as when a pod is started anew."""
        here, digest = self.world, short_digest(plan)
        token = here.folder / "resizing"
        token.write_text(here.tokens.service_account("tiphys-actions", f"act-{self.action}"))
        usual = here.run(plan)
        return Run(
            plan=plan,
            digest=digest,
            not_after=here.now() + timedelta(minutes=10),
            cluster=Watched(Connection(here.url, token, None), digest),
            metrics=None,
            now=usual.now,
            sleep=usual.sleep,
        )

    async def step(self, step: StepName, run: Run) -> Report:
        return await self.world.step(step, run)

    def meanwhile(self, run: Run, request: str, *what: Callable[[], object]) -> None:
        """Let each happen before the first such request, the second, and so on."""
        watched(run).before[request] = [self.world.inside(one) for one in what]


def writes(run: Run) -> list[str]:
    return [what for what in watched(run).sent if "/events" not in what]

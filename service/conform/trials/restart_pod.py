"""restart-pod, tried on one of two pods of a Deployment."""

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import going, status
from tiphys.service.conform.trial import Build, Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, running, settled, template


def _build(stage: Stage) -> Json:
    return _of("Deployment")(stage)


def _of(kind: str) -> Build:
    def build(stage: Stage) -> Json:
        running(stage.world, stage.namespace, kind, template("cart", container(stage.world)))
        return stage.objects("v1", "Pod")[0]

    return build


def _of_job(stage: Stage) -> Json:
    pods = template("cart", container(stage.world))
    pods["spec"]["restartPolicy"] = "Never"
    meta = {"name": "cart", "namespace": stage.namespace}
    body: Json = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}
    made = stage.wire.create({**body, "spec": {"template": pods}})
    settled(stage.world, place_of(made))
    return stage.objects("v1", "Pod")[0]


def _deleted(stage: Stage, target: Json) -> None:
    stage.wire.delete(place_of(target), force=True)
    stage.world.until("it is gone", lambda: stage.wire.find(place_of(target)) is None)
    stage.world.until("another is there", lambda: len(stage.objects("v1", "Pod")) == 2)


def _orphaned(stage: Stage, target: Json) -> None:
    """Its labels no longer match: its owner lets go of it, and would not make it anew."""
    stage.wire.patch(place_of(target), {"metadata": {"labels": {"app": "nobodys"}}})

    def owners() -> object:
        return stage.wire.get(place_of(target))["metadata"].get("ownerReferences")

    stage.world.until("nobody owns it", owners, lambda seen: not seen)


def _full(stage: Stage, target: Json) -> None:
    """Its successor is not let in."""
    del target
    stage.full(1)


def _owner(**spec: object) -> Edit:
    def edit(target: Json, related: Related) -> None:
        [owner] = target["metadata"]["ownerReferences"]
        owner |= spec
        if not spec:
            related["ReplicaSet"] = []

    return edit


def _owner_ends(target: Json, related: Related) -> None:
    del target
    related["ReplicaSet"][0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def _owner_wants_none(target: Json, related: Related) -> None:
    del target
    related["ReplicaSet"][0]["spec"]["replicas"] = 0


def _job(target: Json, related: Related) -> None:
    """An owner that has no replicas to speak of."""
    [owner] = target["metadata"]["ownerReferences"]
    owner["kind"] = "Job"
    made = {"metadata": {"uid": owner["uid"]}, "spec": {"replicas": 0}}
    related["Job"] = [made]


TRIAL = Trial(
    action="restart-pod",
    build=_build,
    also={
        "a StatefulSet owns it": _of("StatefulSet"),
        "a DaemonSet owns it": _of("DaemonSet"),
        "a Job owns it": _of_job,
    },
    violations={
        "the pod is gone": _deleted,
        "nothing would recreate it": _orphaned,
    },
    unplannable={
        "it is being deleted": going,
        "it has done its work": status(phase="Succeeded"),
        "its owner is gone": _owner(),
        "another kind owns it": _owner(kind="Workflow"),
        "another of that name owns it": _owner(uid="another"),
        "nobody controls it": _owner(controller=False),
        "its owner ends": _owner_ends,
        "its owner wants no pods": _owner_wants_none,
    },
    plannable={"a Job owns it": _job},
    spoil=_full,
)

"""rollout-undo, tried on a Deployment with two releases."""

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import spec, unseen
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template


def _release(stage: Stage, path: str, number: str) -> None:
    pods = template("cart", container(stage.world, RELEASE=number))
    stage.wire.patch(path, {"spec": {"template": pods}})


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world, RELEASE="1"))
    path = place_of(stage.wire.create(deployment(stage.namespace, pods, 2)))
    settled(stage.world, path)
    _release(stage, path, "2")
    return settled(stage.world, path)


def _released_again(stage: Stage, target: Json) -> None:
    _release(stage, place_of(target), "3")
    settled(stage.world, place_of(target))


def _paused(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"paused": True}})


def _history_lost(stage: Stage, target: Json) -> None:
    path = place_of(target)
    stage.wire.patch(path, {"spec": {"revisionHistoryLimit": 0}})

    def left() -> list[Json]:
        return stage.objects("apps/v1", "ReplicaSet")

    stage.world.until("the earlier revision is forgotten", left, lambda sets: len(sets) == 1)


def _full(stage: Stage, target: Json) -> None:
    del target
    stage.full(2)


def _edited(stage: Stage, target: Json) -> None:
    _release(stage, place_of(target), "4")


_REVISION = "deployment.kubernetes.io/revision"


def _earlier(related: Related) -> Json:
    sets = related["ReplicaSet"]
    return min(sets, key=lambda one: int(one["metadata"]["annotations"][_REVISION]))


def _earlier_pods(**values: object) -> Edit:
    """Let the earlier revision's pods have had other fields."""

    def edit(target: Json, related: Related) -> None:
        del target
        _earlier(related)["spec"]["template"]["spec"] |= values

    return edit


def _earlier_first(**context: object) -> Edit:
    """Let the earlier revision's container have had another security context."""

    def edit(target: Json, related: Related) -> None:
        del target
        [first] = _earlier(related)["spec"]["template"]["spec"]["containers"]
        first["securityContext"] = context

    return edit


def _earlier_second(**context: object) -> Edit:
    """Let the earlier revision have had a second container."""

    def edit(target: Json, related: Related) -> None:
        del target
        second = {"name": "second", "image": "second", "securityContext": context}
        _earlier(related)["spec"]["template"]["spec"]["containers"].append(second)

    return edit


def _alike(target: Json, related: Related) -> None:
    labels = {**target["spec"]["template"]["metadata"]["labels"], "pod-template-hash": "1"}
    same = {**target["spec"]["template"], "metadata": {"labels": labels}}
    _earlier(related)["spec"]["template"] = same


def _uncounted(target: Json, related: Related) -> None:
    del related
    del target["metadata"]["annotations"][_REVISION]


def _anothers(target: Json, related: Related) -> None:
    del target
    [owner] = _earlier(related)["metadata"]["ownerReferences"]
    owner["uid"] = "another"


_HOST = [{"name": "host", "hostPath": {"path": "/"}}]
_OWN = [{"name": "own", "emptyDir": {}}]

TRIAL = Trial(
    action="rollout-undo",
    build=_build,
    violations={
        "another release came": _released_again,
        "the rollout is paused": _paused,
        "the earlier revision is gone": _history_lost,
    },
    unplannable={
        "the rollout is paused": spec(paused=True),
        "its controller has not seen the newest change": unseen,
        "the earlier revision is the same": _alike,
        "nobody counted its revision": _uncounted,
        "the earlier revision is another's": _anothers,
        "the earlier one used the host's network": _earlier_pods(hostNetwork=True),
        "the earlier one had a volume of the host": _earlier_pods(volumes=_HOST),
        "the earlier one was privileged": _earlier_first(privileged=True),
        "the earlier one had a privileged container more": _earlier_second(privileged=True),
        "the earlier one had a capable container more": _earlier_second(
            capabilities={"add": ["NET_ADMIN"]}
        ),
        "the earlier one had an unmasked container more": _earlier_second(procMount="Unmasked"),
    },
    plannable={
        "the earlier one had a plain container more": _earlier_second(runAsNonRoot=True),
        "the earlier one had a plain volume": _earlier_pods(volumes=_OWN),
    },
    spoil=_full,
    meddle=_edited,
)

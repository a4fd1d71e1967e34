"""What may have been read of workloads: changes that several trials plan on, see `Trial`."""

from tiphys.service.conform.planner import Edit, Json, Related


def spec(**values: object) -> Edit:
    """Set fields of the target's spec; None: without that field."""

    def edit(target: Json, related: Related) -> None:
        del related
        target["spec"] |= values
        for name in [name for name, value in values.items() if value is None]:
            del target["spec"][name]

    return edit


def status(**values: object) -> Edit:
    """Set fields of the target's status."""

    def edit(target: Json, related: Related) -> None:
        del related
        target["status"] |= values

    return edit


def going(target: Json, related: Related) -> None:
    """Let the target be about to end."""
    del related
    target["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def unseen(target: Json, related: Related) -> None:
    """Let its controller not have seen the newest change."""
    del related
    target["metadata"]["generation"] = target["status"]["observedGeneration"] + 1


def stateful(target: Json, revision: str = "1", **strategy: object) -> None:
    """Let the target be a StatefulSet."""
    target["kind"] = "StatefulSet"
    target["spec"]["updateStrategy"] = strategy
    target["status"] |= {"currentRevision": "1", "updateRevision": revision}


def moving_set(target: Json, related: Related) -> None:
    """Let it be a StatefulSet in a rollout."""
    del related
    stateful(target, revision="2")


def on_delete(target: Json, related: Related) -> None:
    """Let it be a StatefulSet that replaces its pods when somebody deletes them."""
    del related
    stateful(target, type="OnDelete")


def partitioned(target: Json, related: Related) -> None:
    """Let it be a StatefulSet that replaces some of its pods."""
    del related
    stateful(target, type="RollingUpdate", rollingUpdate={"partition": 1})


def daemons(wanted: int, updated: int) -> Edit:
    """Let it be a DaemonSet."""

    def edit(target: Json, related: Related) -> None:
        del related
        target["kind"] = "DaemonSet"
        del target["spec"]["replicas"]
        counts = {"desiredNumberScheduled": wanted, "updatedNumberScheduled": updated}
        target["status"] |= {**counts, "numberReady": updated}

    return edit


ROLLING = {
    "its controller has not seen the newest change": unseen,
    "old replicas are still there": status(replicas=9),
    "a StatefulSet is in a rollout": moving_set,
}
"""A rollout is under way, in each way to see it."""
OBSTACLES = {
    **ROLLING,
    "the rollout is paused": spec(paused=True),
    "it wants no pods": spec(replicas=0),
    "it is replaced on deletion": on_delete,
    "it has a partition": partitioned,
}
"""A new pod template would not reach every pod, or not now."""

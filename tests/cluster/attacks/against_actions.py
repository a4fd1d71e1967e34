"""Attacks with the tokens of actions' own pods, on what their Roles let them write."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import against_config
import own_attacks
from against_pools import attacks, resize
from asking import JSON_PATCH, Json, Request, place
from attack import Attack, Section, delete, merge, post, put
from garrison import ACTORS, ELSEWHERE, OTHER_RUN, PAUSE, RELEASE, RUN, SHOP
from garrison import event as an_event
from own_attacks import MARK

DIGEST, OTHER = RUN.removeprefix("tiphys-"), OTHER_RUN.removeprefix("tiphys-")


def sections() -> list[Section]:
    """Give all of them."""
    return [
        ("restart-pod, beyond its pod", "", list(_restarts())),
        ("delete-failed-pods, beyond what a node has ended", "", list(_sweeps())),
        ("delete-failed-job, beyond a CronJob's failed run", "", list(_clearings())),
        ("rollout-undo, beyond the pod template", "", list(_undos())),
        ("scale-workload, beyond the replicas", "", list(_scales())),
        ("scale-gpu-pool, beyond the size and whose turn it is to go", "", list(attacks())),
        ("rollout-restart, beyond its annotation", "", list(_again())),
        ("raise-memory-limit, beyond its bounds", "", list(_raises())),
        *own_attacks.wrongly(),
        ("update-config, beyond what is listed", "", _configs()),
        ("expand-volume, beyond its bounds", "", list(_expansions())),
        (
            "Events in another run's name",
            "An Event is a run's claim, and the door that it closes.",
            list(_events()),
        ),
        (
            "An action's own write, where it may not",
            "The Roles are in the namespace without the label, too: by mistake, as it were.",
            list(_misplaced()),
        ),
    ]


# --- what each action does, rightly -------------------------------------------------------------


def restart(namespace: str = SHOP, **more: Any) -> Request:
    """Delete a pod as restart-pod does."""
    options: Json = {"preconditions": {"uid": f"@@UID-OF-DB-0-IN-{namespace}@@"}} | more
    return delete(
        place("v1", "pods", namespace, "db-0"),
        **{k: v for k, v in options.items() if v is not None},
    )


def sweep(namespace: str = SHOP, pod: str = "OLD-EVICTED", **more: Any) -> Request:
    """Delete a pod that its node has ended, as delete-failed-pods does."""
    options: Json = {"preconditions": {"uid": f"@@UID-OF-{pod}-IN-{namespace}@@"}} | more
    return delete(
        f"{place('v1', 'pods', namespace)}/@@NAME-OF-{pod}-IN-{namespace}@@",
        **{k: v for k, v in options.items() if v is not None},
    )


def clear(namespace: str = SHOP, job: str = "failed", **more: Any) -> Request:
    """Delete a Job as delete-failed-job does."""
    options: Json = {"preconditions": {"uid": f"@@UID-OF-JOB-{job.upper()}-IN-{namespace}@@"}}
    options |= {"propagationPolicy": "Background"} | more
    return delete(
        place("batch/v1", "jobs", namespace, job),
        **{k: v for k, v in options.items() if v is not None},
    )


def undo(*operations: Json, mark: str = f"{DIGEST}.act", namespace: str = SHOP) -> Request:
    """Patch a Deployment as rollout-undo does, with more or other operations."""
    steps: list[Json] = [*(operations or (image(),))]
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    return Request("PATCH", place("apps/v1", "deployments", namespace, "web"), steps, JSON_PATCH)


def image(value: str = f"{PAUSE}2") -> Json:
    """Give the operation that changes the image."""
    return {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": value}


def scale(
    replicas: int = 3,
    manager: str = RUN,
    kind: str = "deployments",
    namespace: str = SHOP,
) -> Request:
    """Put a Scale as scale-workload does."""
    version = f"@@VERSION-OF-{kind.upper()}-IN-{namespace}@@"
    metadata = {"name": "small", "namespace": namespace, "resourceVersion": version}
    body = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }
    query = {"fieldManager": manager} if manager else {}
    return put(place("apps/v1", kind, namespace, "small") + "/scale", body, **query)


WORKLOADS = {"deployments": "web", "statefulsets": "db", "daemonsets": "agent"}
"""Of each kind that rollout-restart works on, one."""


def again(
    *operations: Json,
    mark: str = f"{DIGEST}.act",
    kind: str = "statefulsets",
    namespace: str = SHOP,
) -> Request:
    """Patch a workload as rollout-restart does, with more operations."""
    steps: list[Json] = [renewed(), *operations]
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    place_of = place("apps/v1", kind, namespace, WORKLOADS[kind])
    return Request("PATCH", place_of, steps, JSON_PATCH)


def renewed() -> Json:
    """Give the operation that makes a controller replace the pods."""
    path = "/spec/template/metadata/annotations"
    return {"op": "add", "path": path, "value": {"tiphys.io/restart": "0123456789"}}


ROOMY = {"deployments": "web", "statefulsets": "db"}
"""Of each kind that raise-memory-limit works on, one."""
CONTAINERS = "/spec/template/spec/containers"


def more_memory(
    *operations: Json,
    mark: str = f"{DIGEST}.act",
    kind: str = "statefulsets",
    name: str = "",
    namespace: str = SHOP,
) -> Request:
    """Patch a workload as raise-memory-limit does, with more or other operations."""
    steps: list[Json] = [*(operations or memory("128Mi", "128Mi"))]
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    place_of = place("apps/v1", kind, namespace, name or ROOMY[kind])
    return Request("PATCH", place_of, steps, JSON_PATCH)


def memory(limit: str, request: str = "", container: int = 0) -> list[Json]:
    """Give the operations that set a limit, and a request where it is named."""
    path = f"{CONTAINERS}/{container}/resources"
    found: list[Json] = [{"op": "replace", "path": f"{path}/limits/memory", "value": limit}]
    if request:
        found.append({"op": "replace", "path": f"{path}/requests/memory", "value": request})
    return found


def expand(
    size: str = "2Gi",
    *operations: Json,
    mark: str = f"{DIGEST}.act",
    name: str = "data",
    namespace: str = SHOP,
) -> Request:
    """Patch a claim as expand-volume does, with more operations; an empty size stays."""
    steps: list[Json] = [*operations]
    if size:
        path = "/spec/resources/requests/storage"
        steps.append({"op": "replace", "path": path, "value": size})
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    place_of = place("v1", "persistentvolumeclaims", namespace, name)
    return Request("PATCH", place_of, steps, JSON_PATCH)


def event(name: str = f"{RUN}.act", namespace: str = SHOP) -> Request:
    """Leave an Event as a run does."""
    return post(place("v1", "events", namespace), an_event(name, namespace))


# --- and wrongly --------------------------------------------------------------------------------


def _restarts() -> Iterator[Attack]:
    who = "act-restart-pod"
    yield Attack(
        "a pod by its name alone", who, (restart(preconditions=None), restart(preconditions={}))
    )
    lone = place("v1", "pods", SHOP, "lone")
    yield Attack(
        "a pod that nothing recreates",
        who,
        (delete(lone, preconditions={"uid": f"@@UID-OF-LONE-IN-{SHOP}@@"}),),
    )
    yield Attack("a pod by force", who, (restart(gracePeriodSeconds=0),))
    yield Attack("all pods at once", who, (delete(place("v1", "pods", SHOP)),))
    pod = place("v1", "pods", SHOP, "db-0")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "db-0", "namespace": SHOP},
    }
    yield Attack("an eviction", who, (post(f"{pod}/eviction", eviction),))
    yield Attack(
        "a pod's labels or status",
        who,
        (
            merge(pod, {"metadata": {"labels": {"x": "y"}}}),
            merge(f"{pod}/status", {"status": {"phase": "Failed"}}),
        ),
    )
    for command in ("exec", "attach", "portforward"):
        query = {"command": "id", "stdout": "true"} if command == "exec" else {"stdout": "true"}
        yield Attack(
            f"`pods/{command}`",
            who,
            (Request("POST", f"{pod}/{command}", query=query, stored=True),),
        )
    yield Attack(
        "the pod's owner deleted", who, (delete(place("apps/v1", "statefulsets", SHOP, "db")),)
    )


def _sweeps() -> Iterator[Attack]:
    who = "act-delete-failed-pods"
    yield Attack(
        "an ended pod by its name alone", who, (sweep(preconditions=None), sweep(preconditions={}))
    )
    yield Attack("a pod that failed by itself", who, (sweep(pod="OLD-ERROR"),))
    yield Attack("a Job's ended pod", who, (sweep(pod="WORK-EVICTED"),))
    lone = place("v1", "pods", SHOP, "lone")
    yield Attack(
        "a pod that runs",
        who,
        (restart(), delete(lone, preconditions={"uid": f"@@UID-OF-LONE-IN-{SHOP}@@"})),
    )
    yield Attack("all pods at once", who, (delete(place("v1", "pods", SHOP)),))
    yield Attack(
        "the Deployment or the Job itself",
        who,
        (
            delete(place("apps/v1", "deployments", SHOP, "old")),
            delete(place("batch/v1", "jobs", SHOP, "work")),
        ),
    )


def _clearings() -> Iterator[Attack]:
    who = "act-delete-failed-job"
    yield Attack(
        "a failed run by its name alone", who, (clear(preconditions=None), clear(preconditions={}))
    )
    yield Attack(
        "its pods left behind, or waited for",
        who,
        tuple(clear(propagationPolicy=one) for one in (None, "Orphan", "Foreground")),
    )
    yield Attack("a CronJob's run that has not failed", who, (clear(job="held"),))
    yield Attack("a failed Job that no CronJob made", who, (clear(job="late"),))
    yield Attack("a Job at work", who, (clear(job="work"),))
    yield Attack("all Jobs at once", who, (delete(place("batch/v1", "jobs", SHOP)),))
    report = place("batch/v1", "cronjobs", SHOP, "report")
    yield Attack(
        "the CronJob itself", who, (delete(report), merge(report, {"spec": {"suspend": False}}))
    )
    yield Attack("a pod by itself", who, (sweep(), restart()))


def _undos() -> Iterator[Attack]:
    who, pods = "act-rollout-undo", "/spec/template/spec"

    def attack(title: str, *steps: Json) -> Attack:
        return Attack(title, who, tuple(undo(step) for step in steps))

    def add(path: str, value: Any) -> Json:
        return {"op": "add", "path": path, "value": value}

    yield attack("replicas", add("/spec/replicas", 5))
    yield attack(
        "other fields of the Deployment",
        add("/spec/paused", True),
        add("/spec/revisionHistoryLimit", 0),
        add("/spec/minReadySeconds", 9),
        add("/spec/strategy", {"type": "Recreate"}),
        add("/spec/progressDeadlineSeconds", 1),
    )
    fields: dict[str, Any] = {
        "serviceAccountName": "default",
        "hostNetwork": True,
        "hostPID": True,
        "hostIPC": True,
        "shareProcessNamespace": True,
        "nodeName": "x",
        "automountServiceAccountToken": True,
        "securityContext": {"runAsUser": 0},
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x"]}],
        "priority": 1,
        "dnsPolicy": "Default",
        "hostUsers": False,
    }
    for name, value in fields.items():
        if name != "priority":
            yield attack(f"`{name}` of the pods", add(f"{pods}/{name}", value))
    context = f"{pods}/containers/0/securityContext"
    more = {"name": "more", "image": "x"}
    yield attack(
        "a container's privilege",
        add(f"{context}/privileged", True),
        add(f"{context}/runAsUser", 0),
        add(f"{context}/capabilities", {"add": ["SYS_ADMIN"]}),
        {"op": "remove", "path": context},
        add(f"{pods}/containers/-", {**more, "securityContext": {"privileged": True}}),
        add(
            f"{pods}/containers/-",
            {**more, "securityContext": {"capabilities": {"add": ["NET_RAW"]}}},
        ),
        add(f"{pods}/initContainers", [{**more, "securityContext": {"privileged": True}}]),
    )
    yield attack(
        "a volume of the host",
        add(f"{pods}/volumes", [{"name": "x", "hostPath": {"path": "/"}}]),
        add(f"{pods}/volumes", [{"name": "x", "nfs": {"server": "x", "path": "/"}}]),
    )
    yield attack(
        "other metadata",
        add("/metadata/labels", {"x": "y"}),
        add("/metadata/annotations/x", "y"),
        add("/metadata/annotations/team", "x"),
        {"op": "remove", "path": "/metadata/annotations/team"},
        add("/metadata/finalizers", ["x/y"]),
        add(
            "/metadata/ownerReferences",
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}],
        ),
    )
    yield Attack("no mark", who, (undo(mark=""),))
    yield Attack(
        "another's mark",
        who,
        tuple(
            undo(mark=mark)
            for mark in (f"{OTHER}.act", DIGEST, f"{DIGEST}.x", "", f"{DIGEST}.act.x")[:3]
        ),
    )
    whole = place("apps/v1", "deployments", SHOP, "web")
    yield Attack("the Deployment deleted", who, (delete(whole),))
    yield Attack(
        "its scale, its status",
        who,
        (
            merge(f"{whole}/scale", {"spec": {"replicas": 5}}),
            merge(f"{whole}/status", {"status": {"replicas": 5}}),
        ),
    )
    yield Attack(
        "another kind",
        who,
        (merge(place("apps/v1", "statefulsets", SHOP, "db"), {"spec": {"replicas": 0}}),),
    )


def _scales() -> Iterator[Attack]:
    who = "act-scale-workload"
    both = ("deployments", "statefulsets")
    yield Attack(
        "without its field manager",
        who,
        tuple(
            scale(manager=manager, kind=kind)
            for kind in both
            for manager in ("", "x", OTHER_RUN, f"{OTHER_RUN}.undone", f"{RUN}.kept")
        ),
    )
    yield Attack(
        "more replicas than an action may ask for",
        who,
        tuple(scale(101, kind=kind) for kind in both),
    )
    web = place("apps/v1", "deployments", SHOP, "web")
    yield Attack(
        "the workload itself",
        who,
        (
            merge(web, {"spec": {"replicas": 3}}),
            merge(place("apps/v1", "statefulsets", SHOP, "db"), {"spec": {"replicas": 3}}),
            delete(web),
        ),
    )
    yield Attack(
        "a ReplicaSet's scale",
        who,
        (merge(place("apps/v1", "replicasets", SHOP, "x") + "/scale", {"spec": {"replicas": 3}}),),
        rbac_alone=True,
    )


def _again() -> Iterator[Attack]:
    who, pods = "act-rollout-restart", "/spec/template"

    def attack(title: str, *steps: Json) -> Attack:
        forms = [again(step, kind=kind) for kind in WORKLOADS for step in steps]
        return Attack(title, who, tuple(forms))

    def add(path: str, value: Any) -> Json:
        return {"op": "add", "path": path, "value": value}

    yield attack("other fields of the workload", add("/spec/minReadySeconds", 9))
    yield attack(
        "what the pods run",
        image(),
        add(f"{pods}/spec/containers/0/env", [{"name": "X", "value": "y"}]),
        add(f"{pods}/spec/containers/0/securityContext/privileged", True),
        add(f"{pods}/spec/hostNetwork", True),
        add(f"{pods}/spec/volumes", [{"name": "x", "hostPath": {"path": "/"}}]),
        add(f"{pods}/spec/serviceAccountName", "default"),
        add(f"{pods}/spec/nodeSelector", {"x": "y"}),
    )
    yield attack(
        "the pods' other labels and annotations",
        add(f"{pods}/metadata/labels/x", "y"),
        add(f"{pods}/metadata/annotations/x", "y"),
    )
    yield attack(
        "other metadata",
        add("/metadata/labels", {"x": "y"}),
        add("/metadata/annotations/x", "y"),
        {"op": "remove", "path": "/metadata/annotations/team"},
        add("/metadata/finalizers", ["x/y"]),
    )
    yield Attack("no mark", who, tuple(again(mark="", kind=kind) for kind in WORKLOADS))
    yield Attack(
        "another's mark", who, tuple(again(mark=f"{OTHER}.act", kind=kind) for kind in WORKLOADS)
    )
    yield Attack(
        "a workload deleted or scaled",
        who,
        (
            *(delete(place("apps/v1", kind, SHOP, name)) for kind, name in WORKLOADS.items()),
            merge(
                place("apps/v1", "deployments", SHOP, "web") + "/scale", {"spec": {"replicas": 5}}
            ),
        ),
    )


def _raises() -> Iterator[Attack]:
    who = "act-raise-memory-limit"

    def attack(title: str, *patches: list[Json], **how: str) -> Attack:
        forms = [more_memory(*patch, kind=kind, **how) for kind in ROOMY for patch in patches]
        return Attack(title, who, tuple(forms))

    def add(path: str, value: Any) -> list[Json]:
        return [*memory("96Mi", "96Mi"), {"op": "add", "path": path, "value": value}]

    yield attack(
        "more than twice the limit",
        memory("129Mi", "129Mi"),
        memory("1Gi", "1Gi"),
        memory("134218k", "134218k"),
        memory("65537Mi", "65537Mi"),
    )
    yield attack("less than the limit", memory("63Mi", "63Mi"), memory("32Mi", "32Mi"))
    ended = {"mark": f"{DIGEST}.undone"}
    yield attack("less, as if it were put back", memory("32Mi", "32Mi"), **ended)
    yield attack("more, as if it were put back", memory("96Mi", "96Mi"), **ended)
    yield attack("a second time", memory("96Mi", "96Mi"), name="raised-act")
    yield attack("again, after it was put back", memory("96Mi", "96Mi"), name="raised-undone")
    yield attack("put back to less than half", memory("31Mi", "31Mi"), name="raised-act", **ended)
    yield attack("put back twice", memory("32Mi", "32Mi"), name="raised-undone", **ended)
    back = {"mark": f"{DIGEST}.back"}
    yield attack("less, as if another's were put back", memory("32Mi", "32Mi"), **back)
    yield attack("more, as if another's were put back", memory("96Mi"), name="raised-other", **back)
    yield attack(
        "another's put back to less than half",
        memory("31Mi", "31Mi"),
        name="raised-other",
        **back,
    )
    yield attack(
        "another's put back as its own", memory("32Mi", "32Mi"), name="raised-other", **ended
    )
    yield attack("its own put back as another's", memory("32Mi", "32Mi"), name="raised-act", **back)
    yield attack("another's put back, then raised", memory("96Mi"), name="raised-back")
    yield attack("set again to more than twice", memory("129Mi"), name="raised-back", **ended)
    yield attack(
        "another's put back, then lowered", memory("32Mi", "32Mi"), name="raised-back", **ended
    )
    yield attack(
        "a request of its own",
        memory("96Mi", "80Mi"),
        memory("64Mi", "32Mi"),
        memory("96Mi", "96Mi", 1),
        memory("64Mi", "64Mi", 1),
    )
    yield attack("two containers", [*memory("96Mi", "96Mi"), *memory("96Mi", container=1)])
    first = f"{CONTAINERS}/0"
    yield attack(
        "what else a container has",
        [*memory("96Mi", "96Mi"), image()],
        add(f"{first}/resources/limits/cpu", "200m"),
        add(f"{first}/resources/requests/cpu", "20m"),
        add(f"{first}/resources/limits/ephemeral-storage", "1Gi"),
        add(f"{first}/env", [{"name": "X", "value": "y"}]),
        add(f"{first}/securityContext/privileged", True),
        [{"op": "remove", "path": f"{first}/resources/limits/memory"}],
        [{"op": "remove", "path": f"{first}/resources/requests/memory"}],
        [{"op": "remove", "path": f"{first}/resources/limits"}],
    )
    yield attack(
        "what else the pods have",
        add(f"{CONTAINERS}/-", {"name": "more", "image": "x"}),
        [{"op": "remove", "path": f"{CONTAINERS}/1"}],
        add("/spec/template/spec/hostNetwork", True),
        add("/spec/template/spec/volumes", [{"name": "x", "emptyDir": {}}]),
        add("/spec/template/metadata/labels/x", "y"),
        add("/spec/template/metadata/annotations", {"x": "y"}),
    )
    yield attack("other fields of the workload", add("/spec/minReadySeconds", 9))
    yield attack(
        "other metadata", add("/metadata/labels", {"x": "y"}), add("/metadata/annotations/x", "y")
    )
    yield attack("no mark", memory("64Mi"), mark="")
    yield attack("another's mark", memory("64Mi"), mark=f"{OTHER}.act")


def _expansions() -> Iterator[Attack]:
    who = "act-expand-volume"

    def attack(title: str, *forms: Request) -> Attack:
        return Attack(title, who, forms)

    def add(path: str, value: Any) -> Json:
        return {"op": "add", "path": path, "value": value}

    yield attack(
        "more than twice its size",
        *(expand(size) for size in ("2049Mi", "100Gi", "2148M")),
        expand("9Gi", name="growing"),
    )
    yield attack("less than it asks for", expand("2Gi", name="growing"))
    yield attack(
        "a second time", *(expand("1536Mi", name=f"raised-{end}") for end in ("act", "kept"))
    )
    yield attack(
        "more, with the mark of an end",
        *(expand(mark=f"{DIGEST}.{end}") for end in ("kept", "undone")),
    )
    yield attack(
        "another class of attributes", expand("2Gi", add("/spec/volumeAttributesClassName", "gold"))
    )
    yield attack(
        "other metadata",
        expand("2Gi", add("/metadata/labels", {"x": "y"})),
        expand("2Gi", add("/metadata/annotations/x", "y")),
        expand("2Gi", {"op": "remove", "path": "/metadata/annotations/team"}),
        expand("2Gi", add("/metadata/finalizers", ["x/y"])),
    )
    yield attack("no mark", expand(mark=""), expand("1Gi", mark=""))
    yield attack("another's mark", *(expand(s, mark=f"{OTHER}.act") for s in ("1Gi", "2Gi")))
    data = place("v1", "persistentvolumeclaims", SHOP, "data")
    capacity = {"status": {"capacity": {"storage": "2Gi"}}}
    yield attack(
        "a claim deleted", delete(data), delete(place("v1", "persistentvolumeclaims", SHOP))
    )
    yield attack("what it has", merge(f"{data}/status", capacity))
    yield attack(
        "the volume or the class itself",
        merge(place("v1", "persistentvolumes", "", f"{SHOP}-data"), {"spec": capacity["status"]}),
        merge(
            place("storage.k8s.io/v1", "storageclasses", "", f"{RELEASE}-fast"),
            {"allowVolumeExpansion": False},
        ),
    )


def _events() -> Iterator[Attack]:
    for name in ACTORS:
        who = f"act-{name}"
        names = (f"{OTHER_RUN}.act", f"{OTHER_RUN}.undone", "x", RUN, f"{RUN}x.act")
        yield Attack("an Event", who, tuple(event(one) for one in names))
    old = place("v1", "events", SHOP, f"{RUN}.old")
    for name in ACTORS:
        yield Attack(
            "an Event changed or deleted",
            f"act-{name}",
            (
                merge(old, {"message": "x"}),
                delete(old),
            ),
        )


def _configs() -> list[Attack]:
    """What it may do to workloads is what rollout-restart may, so the same attacks are its own."""
    same = [replace(one, who=against_config.WHO) for one in _again()]
    return [*against_config.attacks(), *(replace(a, title=f"a workload: {a.title}") for a in same)]


def _misplaced() -> Iterator[Attack]:
    own = {
        "act-delete-failed-job": clear,
        "act-delete-failed-pods": sweep,
        "act-restart-pod": restart,
        "act-rollout-undo": lambda namespace: undo(namespace=namespace),
        "act-scale-gpu-pool": lambda namespace: resize(namespace=namespace),
        "act-scale-workload": lambda namespace: scale(namespace=namespace),
        "act-rollout-restart": lambda namespace: again(namespace=namespace),
        "act-raise-memory-limit": lambda namespace: more_memory(namespace=namespace),
        **{f"act-{name}": found.own for name, found in own_attacks.attacks_by_action()},
        "act-update-config": lambda namespace: against_config.set_value(namespace=namespace),
        "act-expand-volume": lambda namespace: expand(namespace=namespace),
    }
    for who, make in own.items():
        yield Attack("where nobody opted in", who, (make(ELSEWHERE), event(namespace=ELSEWHERE)))
        yield Attack("with a token of no pod", f"{who}, unbound", (make(SHOP), event()))
    nobody = tuple(make(SHOP) for make in own.values())
    yield Attack("what an action may, as no action", "act-unknown", nobody)
    for who in own:
        for other, make in own.items():
            if other != who and (who, other) not in _INCLUDED:
                yield Attack(f"what {other.removeprefix('act-')} may", who, (make(SHOP),))


_INCLUDED = (
    # Who may delete an ended pod to sweep up may also be sent to restart it.
    ("act-restart-pod", "act-delete-failed-pods"),
    # Who sets a value renews the pods, too.
    ("act-update-config", "act-rollout-restart"),
)

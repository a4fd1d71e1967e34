"""Attacks with the token of a node action's own pod, and on where such a pod may run."""

from collections.abc import Iterator
from typing import Any

from asking import JSON_PATCH, Json, Request, place
from attack import Attack, Section, changed, delete, merge, post, without
from garrison import ACTIONS, ELSEWHERE, OTHER_RUN, RUN, SHOP, STEP, config_map
from garrison import event as an_event
from outposts import ACTOR, CLOSED, HEAD, OPEN, OURS, OUT, TAINTED, THEIRS, node_pod

from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.render import RenderSettings, workflow_template

DIGEST, OTHER = RUN.removeprefix("tiphys-"), OTHER_RUN.removeprefix("tiphys-")
MARK = "/metadata/annotations/tiphys.io~1run"
WHO = f"act-{ACTOR}"
PODS = place("v1", "pods", ACTIONS)
TEMPLATES = place("argoproj.io/v1alpha1", "workflowtemplates", ACTIONS)
_TERMS = (
    "spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms"
)


def sections() -> list[Section]:
    """Give all of them."""
    return [
        ("cordon-drain-node, beyond a node that opted in", "", list(_closings())),
        ("cordon-drain-node, beyond an eviction by uid", "", list(_evictions())),
        ("An Event where those of nodes are", "", list(_tellings())),
        (
            "A pod that acts on a node and might run there",
            "Made by Argo's controller, as from a template that somebody has changed.",
            list(_pods()),
        ),
        ("A template whose pods might run on the node they act on", "", list(_templates())),
    ]


# --- what the action does, rightly ----------------------------------------------------------------


def close(node: str = OPEN, *operations: Json, mark: str = f"{DIGEST}.act") -> Request:
    """Patch a node as the action does, with more operations."""
    return _patch(node, {"op": "add", "path": "/spec/unschedulable", "value": True}, *operations,
                  mark=mark)  # fmt: skip


def reopen(node: str = OURS, *operations: Json, mark: str = f"{DIGEST}.undone") -> Request:
    """Patch a node as the action's rollback does, with more operations."""
    return _patch(node, {"op": "remove", "path": "/spec/unschedulable"}, *operations, mark=mark)


def _patch(node: str, *operations: Json, mark: str) -> Request:
    steps = [*operations]
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    return Request("PATCH", place("v1", "nodes", name=node), steps, JSON_PATCH)


def evict(namespace: str = SHOP, **options: Any) -> Request:
    """Evict a pod as the action does, with other options."""
    given: Json = {"preconditions": {"uid": f"@@UID-OF-DB-0-IN-{namespace}@@"}} | options
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "db-0", "namespace": namespace},
        "deleteOptions": {k: v for k, v in given.items() if v is not None},
    }
    return post(place("v1", "pods", namespace, "db-0") + "/eviction", body)


def rightly() -> Iterator[Attack]:
    """Give what must be let through."""
    yield Attack("closing a node that opted in", WHO, (close(),))
    yield Attack("opening what this run has closed", WHO, (reopen(),))
    yield Attack("opening for an undo", WHO, (reopen(THEIRS, mark=f"{DIGEST}.back"),))
    yield Attack("noting the end", WHO, (_patch(OURS, mark=f"{DIGEST}.kept"),))
    yield Attack("evicting a pod by its uid", WHO, (evict(),))
    yield Attack("a node's Events", WHO, (_event(f"{RUN}.act"), _event(f"{RUN}.undone")))
    yield Attack("the pod of a run on a node", "controller", (post(PODS, node_pod(90)),))


def _event(name: str) -> Request:
    return post(place("v1", "events", "default"), an_event(name, "default"))


# --- wrongly --------------------------------------------------------------------------------------


def _add(path: str, value: Any) -> Json:
    return {"op": "add", "path": path, "value": value}


def _closings() -> Iterator[Attack]:
    yield Attack("a node that did not opt in", WHO, (close(OUT),))
    yield Attack("a node of the control plane", WHO, (close(HEAD), close(TAINTED)))
    yield Attack(
        "more of the spec",
        WHO,
        (
            close(OPEN, _add("/spec/taints/-", {"key": "x", "effect": "NoExecute"})),
            close(OPEN, {"op": "remove", "path": "/spec/taints"}),
            close(OPEN, _add("/spec/providerID", "x://y")),
            reopen(OURS, _add("/spec/taints/-", {"key": "x", "effect": "NoExecute"})),
        ),
    )
    yield Attack(
        "more of the metadata",
        WHO,
        (
            close(OPEN, _add("/metadata/labels/x", "y")),
            close(OPEN, {"op": "remove", "path": "/metadata/labels/tiphys.io~1heal"}),
            close(OPEN, _add("/metadata/annotations/x", "y")),
            close(OPEN, {"op": "remove", "path": "/metadata/annotations/team"}),
            close(OPEN, _add("/metadata/finalizers", ["x/y"])),
        ),
    )
    yield Attack(
        "under another mark, or none",
        WHO,
        tuple(close(mark=m) for m in ("", f"{OTHER}.act", f"{DIGEST}.kept", f"{DIGEST}.undone")),
    )
    yield Attack("opening what another run has closed", WHO, (reopen(THEIRS),))
    yield Attack(
        "opening what a person has closed",
        WHO,
        (reopen(CLOSED), reopen(CLOSED, mark=f"{DIGEST}.back")),
    )
    yield Attack(
        "closing as if it were put back",
        WHO,
        tuple(close(mark=f"{DIGEST}.{ending}") for ending in ("back", "stays")),
    )
    yield Attack(
        "opening under another mark, or none",
        WHO,
        tuple(
            reopen(mark=mark) for mark in ("", f"{OTHER}.undone", f"{DIGEST}.act", f"{DIGEST}.back")
        ),
    )
    alone = (
        _patch(OURS, mark=f"{DIGEST}.undone"),
        _patch(OPEN, mark=f"{DIGEST}.act"),
        _patch(OPEN, mark=f"{DIGEST}.kept"),
    )
    yield Attack("a mark alone", WHO, alone)
    path = place("v1", "nodes", name=OPEN)
    yield Attack(
        "a node's status, its end, another node",
        WHO,
        (
            merge(f"{path}/status", {"status": {"allocatable": {"cpu": "0"}}}),
            delete(path),
            post(place("v1", "nodes"), {"apiVersion": "v1", "kind": "Node",
                                        "metadata": {"name": "attack-node-new"}}),
        ),
    )  # fmt: skip
    for who in (f"{WHO}, unbound", "act-restart-pod", "launcher", "agents"):
        yield Attack("closing a node", who, (close(),))


def _tellings() -> Iterator[Attack]:
    yield Attack("in another run's name", WHO, (_event(f"{OTHER_RUN}.act"), _event("x")))
    yield Attack("of an action on no node", "act-restart-pod", (_event(f"{RUN}.act"),))
    yield Attack("anything else there", WHO, (post(place("v1", "configmaps", "default"),
                 config_map("default", "x")),))  # fmt: skip


def _evictions() -> Iterator[Attack]:
    yield Attack("without a uid", WHO, (evict(preconditions=None), evict(preconditions={})))
    yield Attack(
        "without time to end, or leaving others behind",
        WHO,
        (evict(gracePeriodSeconds=0), evict(propagationPolicy="Orphan")),
    )
    yield Attack("where nobody opted in", WHO, (evict(ELSEWHERE),))
    options = {"preconditions": {"uid": f"@@UID-OF-DB-0-IN-{SHOP}@@"}}
    yield Attack("deleting instead", WHO, (delete(place("v1", "pods", SHOP, "db-0"), **options),))
    for who in (f"{WHO}, unbound", "act-restart-pod", "launcher", "agents"):
        yield Attack("evicting a pod", who, (evict(),))


def _pods() -> Iterator[Attack]:
    good = node_pod(91)
    main = "spec/containers/1/env"
    env = good["spec"]["containers"][1]["env"]
    fields = f"{_TERMS}/0/matchFields"
    named = {"key": "metadata.name", "operator": "NotIn", "values": [OPEN]}

    def attack(title: str, *changes: tuple[str, Any]) -> Attack:
        return Attack(title, "controller", tuple(post(PODS, changed(good, *c)) for c in changes))

    yield Attack("no affinity", "controller", (post(PODS, without(good, "spec/affinity")),))
    yield attack(
        "an affinity that another node would meet as well",
        (f"{fields}/0", {**named, "operator": "In"}),
        (f"{fields}/0", {**named, "values": ["another"]}),
        (f"{_TERMS}/0", {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}),
    )
    other = {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}
    terms = [{"matchFields": [named]}, other]
    yield attack("another term, which the node meets", (_TERMS, terms))
    yield attack(
        "another node named to the step, or none, or two",
        (main, [*env[:-1], {"name": "TIPHYS_NODE", "value": "another"}]),
        (main, [*env[:-1], {"name": "TIPHYS_NODE", "value": ""}]),
        (main, env[:-1]),
        (main, [*env, {"name": "TIPHYS_NODE", "value": "another"}]),
        (main, env[:1]),
    )


def _templates() -> Iterator[Attack]:
    settings = RenderSettings(image=STEP, public_key="ab" * 32, namespace=ACTIONS)
    found: Any = workflow_template(settings, find(ACTOR))
    good = changed(found, "metadata/name", f"{ACTOR}-v9")
    parameters = good["spec"]["arguments"]["parameters"]
    named = f"{_TERMS}/0/matchFields/0"

    def attack(title: str, *bodies: Json) -> Attack:
        return Attack(title, "publisher", tuple(post(TEMPLATES, one) for one in bodies))

    yield attack(
        "no affinity, or another",
        without(good, "spec/affinity"),
        changed(good, f"{named}/operator", "In"),
        changed(good, f"{named}/values", ["another"]),
        changed(good, _TERMS, []),
    )
    yield attack(
        "without the node's name", changed(good, "spec/arguments/parameters", parameters[:-1])
    )

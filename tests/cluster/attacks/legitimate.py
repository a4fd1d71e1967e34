"""What must go through: everything that Tiphys, Argo and the publishers really do."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import against_config
import against_machines
import against_nodes
import own_attacks
from against_actions import (
    DIGEST,
    ROOMY,
    WORKLOADS,
    again,
    clear,
    event,
    expand,
    image,
    memory,
    more_memory,
    restart,
    scale,
    sweep,
    undo,
)
from against_pools import rightly
from against_runs import PODS, RESULTS, STOPS, result, stop
from against_templates import CATALOGUE, ENTRY, PUBLISHED, TEMPLATES, template
from against_workflows import NEW, RUNNING, WORKFLOWS
from asking import Json, Request, place
from attack import Attack, apply, changed, delete, merge, post
from garrison import ACTIONS, ACTORS, PAUSE, RUN, SHOP, workflow
from outposts import run_pod

STOPPED = {"spec": {"shutdown": "Stop"}}


def requests() -> list[Attack]:
    """Give them in the shape of attacks, with who does them."""
    return [*_of_service(), *_of_argo(), *_of_publishers(), *_of_actions()]


def _of_service() -> Iterator[Attack]:
    plan = workflow(NEW)
    largest = changed(plan, "spec/arguments/parameters/0/value", "a" * 16_384)
    yield Attack("a plan", "launcher", (post(WORKFLOWS, plan), post(WORKFLOWS, largest)))
    noted = changed(plan, "metadata/annotations/tiphys.io~1trace", "x")
    yield Attack("a plan with a note of ours", "launcher", (post(WORKFLOWS, noted),))
    bare = {key: plan[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    yield Attack("a plan by server-side apply", "launcher", (apply(f"{WORKFLOWS}/{NEW}", bare),))
    yield Attack("`shutdown: Stop`", "launcher", (merge(RUNNING, STOPPED),))
    yield Attack("the stop", "gateway", (post(STOPS, stop()),))
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": SHOP}},
    }
    asked = post(place("authorization.k8s.io/v1", "selfsubjectaccessreviews"), review)
    for who in ("launcher", "gateway", "agents", *(f"act-{name}" for name in ACTORS)):
        yield Attack("a question about its own rights", who, (asked,))


def _of_argo() -> Iterator[Attack]:
    labels = {"workflows.argoproj.io/phase": "Running", "workflows.argoproj.io/completed": "false"}
    moved = {"metadata": {"labels": labels}, "status": {"phase": "Running", "message": "x"}}
    yield Attack("a Workflow's labels and status", "controller", (merge(RUNNING, moved),))
    yield Attack(
        "a Workflow suspended", "controller", (merge(RUNNING, {"spec": {"suspend": True}}),)
    )
    yield Attack("an old Workflow deleted", "controller", (delete(RUNNING),))
    for number, name in enumerate(ACTORS):
        yield Attack("a run's pod", "controller", (post(PODS, run_pod(name, number, NEW)),))
    done = {"metadata": {"labels": {"workflows.argoproj.io/completed": "true"}}}
    pod = f"{PODS}/{RUN}-run-101"
    yield Attack("a pod's labels, a pod deleted", "controller", (merge(pod, done), delete(pod)))
    for finalizers in (["foregroundDeletion"], None):
        body = {"metadata": {"finalizers": finalizers}}
        yield Attack(
            "the end of a Workflow and a pod", "collector", (merge(RUNNING, body), merge(pod, body))
        )


def _of_publishers() -> Iterator[Attack]:
    base = template(1)
    yield Attack("the next number of a template", "publisher", (post(TEMPLATES, template()),))
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]
            }
        }
    }
    upgraded: list[tuple[str, Any]] = [
        ("spec/templates/1/containerSet/containers/0/image", "docker.io/tiphys/step:next"),
        ("spec/templates/3/container/env/0/value", "x"),
        ("spec/activeDeadlineSeconds", 9),
        ("spec/affinity", affinity),
        ("spec/tolerations", []),
        ("spec/podPriorityClassName", "x"),
        ("metadata/labels/helm.sh~1chart", "tiphys-9"),
    ]
    yield Attack(
        "a template with what an installation decides",
        "publisher",
        tuple(_upgrade(changed(base, path, value)) for path, value in upgraded),
    )
    yield Attack(
        "a template and the catalogue deleted", "publisher", (delete(PUBLISHED), delete(CATALOGUE))
    )
    yield Attack(
        "an entry of the catalogue",
        "publisher",
        (merge(CATALOGUE, {"data": {"restart-pod-v2": ENTRY}}),),
    )
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "x", "namespace": ACTIONS},
    }
    yield Attack(
        "an account among the runs",
        "publisher",
        (post(place("v1", "serviceaccounts", ACTIONS), account),),
    )


def _upgrade(body: Json) -> Request:
    return merge(
        PUBLISHED, {"metadata": {"labels": body["metadata"]["labels"]}, "spec": body["spec"]}
    )


def _of_actions() -> Iterator[Attack]:
    yield Attack("its pod deleted", "act-restart-pod", (restart(), restart(gracePeriodSeconds=1)))
    yield Attack("an ended pod deleted", "act-delete-failed-pods", (sweep(),))
    yield Attack("a CronJob's failed run deleted", "act-delete-failed-job", (clear(),))
    pods = "/spec/template/spec"
    more = {"name": "more", "image": PAUSE, "securityContext": {"runAsUser": 1000}}
    volume = {"name": "x", "configMap": {"name": "x"}}
    yield Attack(
        "an earlier pod template",
        "act-rollout-undo",
        (
            undo(),
            undo(image(), mark=f"{DIGEST}.undone"),
            undo({"op": "test", "path": "/spec/replicas", "value": 1}, mark=f"{DIGEST}.kept"),
            undo({"op": "add", "path": f"{pods}/containers/-", "value": more}),
            undo({"op": "add", "path": f"{pods}/volumes", "value": [volume]}),
            undo({"op": "add", "path": f"{pods}/nodeSelector", "value": {"x": "y"}}),
            undo({"op": "add", "path": "/spec/template/metadata/annotations", "value": {"x": "y"}}),
        ),
    )
    yield Attack(
        "replicas",
        "act-scale-workload",
        tuple(
            scale(number, manager, kind)
            for kind in ("deployments", "statefulsets")
            for number, manager in (
                (3, RUN),
                (100, RUN),
                (200, f"{RUN}.undone"),
                (2, f"{RUN}.back"),
            )
        ),
    )
    yield from rightly()
    yield Attack(
        "all pods renewed",
        "act-rollout-restart",
        tuple(
            again(kind=kind, mark=f"{DIGEST}.{ending}")
            for kind in WORKLOADS
            for ending in ("act", "undone", "kept", "back", "stays")
        ),
    )
    yield Attack(
        "more memory, and less again",
        "act-raise-memory-limit",
        tuple(
            request
            for kind in ROOMY
            for request in (
                more_memory(kind=kind),
                more_memory(*memory("65Mi", "65Mi"), kind=kind),
                more_memory(*memory("128Mi", container=1), kind=kind),
                more_memory(
                    *memory("32Mi", "32Mi"),
                    kind=kind,
                    name="raised-act",
                    mark=f"{DIGEST}.undone",
                ),
                more_memory(
                    {"op": "test", "path": "/spec/replicas", "value": 0},
                    kind=kind,
                    name="raised-act",
                    mark=f"{DIGEST}.kept",
                ),
                more_memory(
                    *memory("32Mi", "32Mi"), kind=kind, name="raised-other", mark=f"{DIGEST}.back"
                ),
                more_memory(
                    *memory("128Mi", "128Mi"),
                    kind=kind,
                    name="raised-back",
                    mark=f"{DIGEST}.undone",
                ),
                more_memory(
                    {"op": "test", "path": "/spec/replicas", "value": 0},
                    kind=kind,
                    name="raised-back",
                    mark=f"{DIGEST}.stays",
                ),
            )
        ),
    )
    yield from own_attacks.rightly()
    yield Attack(
        "all pods renewed",
        "act-update-config",
        tuple(
            again(kind=kind, mark=f"{DIGEST}.{ending}")
            for kind in WORKLOADS
            for ending in ("act", "undone", "kept")
        ),
    )
    yield from against_config.legitimate()
    yield Attack(
        "more storage, and the mark of its end",
        "act-expand-volume",
        (
            expand(),
            expand("1100Mi"),
            *(expand("", name="raised-act", mark=f"{DIGEST}.{end}") for end in ("kept", "undone")),
        ),
    )
    yield from against_nodes.rightly()
    yield from against_machines.rightly()
    for name, number in ACTORS.items():
        who, node = f"act-{name}", f"{RUN}-{number}"
        names = ("act", "undone", "kept", "acted", "undid")
        yield Attack("its Events", who, tuple(event(f"{RUN}.{end}") for end in names))
        # Argo's executor creates the result and patches it: here, one that is not there yet.
        yield Attack("its own node's result", who, (post(RESULTS, result(node, RUN)),))


def stored(request: Request) -> Request:
    """Give the same request, to be stored."""
    return replace(request, stored=True)

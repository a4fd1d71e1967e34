"""Attacks on Workflows: creating, changing and deleting them."""

from collections.abc import Iterator
from typing import Any

import fields
from asking import Json, Request, place
from attack import Attack, Section, apply, changed, delete, merge, post, without
from garrison import ACTIONS, RUN, SHOP, SYSTEM, workflow

WORKFLOWS = place("argoproj.io/v1alpha1", "workflows", ACTIONS)
RUNNING = f"{WORKFLOWS}/{RUN}"
ALLOWED = ("workflowTemplateRef", "arguments")
NEW = "tiphys-" + "c" * 40
OTHERS = ("gateway", "agents", "act-restart-pod", "act-unknown", "administrator", "publisher")
_GIVEN = "spec/arguments/parameters"


def sections() -> list[Section]:
    """Give all of them."""
    return [
        (
            "A new Workflow with a field of Argo's WorkflowSpec",
            (
                "Each field of the CustomResourceDefinition's schema, with a value made from it: "
                "alone, with each of the two allowed fields, and with both."
            ),
            list(_fields()),
        ),
        (
            "A new Workflow with something else inside the allowed fields",
            "The fields below `workflowTemplateRef` and `arguments` come from the schema, too.",
            list(_inside()),
        ),
        ("A new Workflow with other metadata", "", list(_metadata())),
        ("A new Workflow by somebody else, or elsewhere", "", list(_strangers())),
        ("A running Workflow changed", "", [*_launcher_updates(), *_other_updates()]),
        (
            "A Workflow deleted",
            "A Workflow is the record, and its rollback runs in it.",
            _deletions(),
        ),
    ]


def _fields() -> Iterator[Attack]:
    for name, value in fields.values():
        if name in ALLOWED:
            continue
        whole = workflow(NEW, **{name: value})
        forms = (
            without(without(whole, "spec/arguments"), "spec/workflowTemplateRef"),
            without(whole, "spec/arguments"),
            without(whole, "spec/workflowTemplateRef"),
            whole,
        )
        yield Attack(f"`spec.{name}`", "launcher", tuple(post(WORKFLOWS, one) for one in forms))


def _inside() -> Iterator[Attack]:
    plan = workflow(NEW)

    def attack(title: str, *bodies: Json) -> Attack:
        return Attack(title, "launcher", tuple(post(WORKFLOWS, body) for body in bodies))

    def value(index: int, *values: Any) -> tuple[Json, ...]:
        return tuple(changed(plan, f"{_GIVEN}/{index}/value", one) for one in values)

    for name, one in fields.inside("workflowTemplateRef"):
        if name != "name":
            yield attack(
                f"`workflowTemplateRef.{name}`",
                changed(plan, f"spec/workflowTemplateRef/{name}", one),
            )
    for name, one in fields.inside("arguments"):
        if name != "parameters":
            yield attack(f"`arguments.{name}`", changed(plan, f"spec/arguments/{name}", one))
    for name, one in fields.inside("arguments", "parameters"):
        if name not in {"name", "value"}:
            yield attack(
                f"`arguments.parameters[].{name}`", changed(plan, f"{_GIVEN}/0/{name}", one)
            )
    reference = "spec/workflowTemplateRef"
    yield attack("no template at all", without(plan, reference), changed(plan, reference, {}))
    yield attack(
        "a template that is not in the catalogue",
        *(
            changed(plan, f"{reference}/name", name)
            for name in ("restart-pod-v2", "_publisher", "restart-pod", "../x-v1", "", "a.b-v1")
        ),
    )
    given = plan["spec"]["arguments"]["parameters"]
    yield attack("a parameter missing", *(without(plan, f"{_GIVEN}/{index}") for index in range(4)))
    yield attack("no parameters", without(plan, "spec/arguments"), changed(plan, _GIVEN, []))
    yield attack(
        "a parameter too many",
        changed(plan, _GIVEN, [*given, {"name": "image", "value": "x"}]),
        changed(plan, _GIVEN, [*given, given[0]]),
        changed(plan, _GIVEN, [*given[:3], given[0]]),
    )
    yield attack(
        "a template expression as a value",
        *value(0, "{{workflow.name}}", "{{=sprig.env('X')}}"),
        *value(2, "{{workflow.creationTimestamp}}"),
        *value(3, "{{workflow.parameters.plan}}", "{{=1+1}}"),
    )
    yield attack(
        "blanks, quotes or shell characters in a value",
        *value(0, "a b", "a\nb", "a'b", 'a"b', "a;b", "a|b", "`a`", "a\u2028b", ""),
        *value(3, "a b", "$(a)", "a'b", "-a", "a/b", "a\\b", "", "\u202ea"),
    )
    yield attack("a value that is too long", *value(0, "a" * 16_385), *value(2, "a" * 254))
    yield attack("a value that is no text", *value(0, 1, True, {"a": "b"}, ["a"], None))
    yield attack("an expired plan", *value(1, "2020-01-01T00:00:00Z"))
    yield attack("a plan valid for too long", *value(1, "2999-01-01T00:00:00Z"))
    yield attack("a plan valid until nobody knows when", *value(1, "tomorrow", "2030-01-01", "1"))
    late = changed(plan, "metadata/creationTimestamp", "2998-12-31T23:59:00Z")
    yield attack(
        "a birthday that makes a late plan look early",
        changed(late, f"{_GIVEN}/1/value", "2999-01-01T00:00:00Z"),
    )
    yield attack(
        "a status from the start",
        changed(plan, "status", {"phase": "Running"}),
        changed(plan, "status", {"storedWorkflowTemplateSpec": {"entrypoint": "x"}}),
    )


def _metadata() -> Iterator[Attack]:
    plan = workflow(NEW)

    def attack(title: str, *bodies: Json) -> Attack:
        return Attack(title, "launcher", tuple(post(WORKFLOWS, body) for body in bodies))

    def named(name: str) -> Json:
        return changed(plan, "metadata/name", name)

    yield attack(
        "a name that is no plan's digest",
        named("x"),
        named("tiphys-" + "c" * 39),
        named("tiphys-" + "c" * 41),
        named("tiphys-" + "1" * 40),
        named("x-tiphys-" + "c" * 40),
    )
    yield attack(
        "`generateName`",
        changed(plan, "metadata/generateName", "tiphys-"),
        changed(without(plan, "metadata/name"), "metadata/generateName", "tiphys-" + "c" * 40),
    )
    yield attack("`finalizers`", changed(plan, "metadata/finalizers", ["foregroundDeletion"]))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1", "controller": True}
    yield attack("`ownerReferences`", changed(plan, "metadata/ownerReferences", [owner]))
    for key, value in {
        "workflows.argoproj.io/controller-instanceid": "another",
        "workflows.argoproj.io/completed": "true",
        "workflows.argoproj.io/phase": "Succeeded",
        "workflows.argoproj.io/archive-strategy": "always",
        "workflows.argoproj.io/creator": "somebody",
        "app.kubernetes.io/managed-by": "x",
        "tiphys.iox": "x",
    }.items():
        label = key.replace("/", "~1")
        yield attack(f"label `{key}`", changed(plan, f"metadata/labels/{label}", value))
    for key in (
        "workflows.argoproj.io/pod-name-format",
        "workflows.argoproj.io/progress",
        "kubectl.kubernetes.io/last-applied-configuration",
        "policies.kubernetes.io/x",
    ):
        note = key.replace("/", "~1")
        yield attack(f"annotation `{key}`", changed(plan, f"metadata/annotations/{note}", "x"))
    extra = without(plan, f"{_GIVEN}/0")
    yield Attack(
        "server-side apply that creates, with one thing more",
        "launcher",
        (
            apply(f"{WORKFLOWS}/{NEW}", changed(plan, "spec/entrypoint", "rollback")),
            apply(f"{WORKFLOWS}/{NEW}", changed(plan, "spec/shutdown", "Stop")),
            apply(f"{WORKFLOWS}/{NEW}", changed(plan, "metadata/labels/x", "y")),
            apply(f"{WORKFLOWS}/{NEW}", changed(plan, "metadata/finalizers", ["x/y"])),
            apply(f"{WORKFLOWS}/{NEW}", extra),
        ),
    )


def _strangers() -> Iterator[Attack]:
    plan = workflow(NEW)
    for who in (*OTHERS, "controller"):
        yield Attack("the launcher's own plan", who, (post(WORKFLOWS, plan),))
    for namespace in (SHOP, SYSTEM, "default", "kube-system"):
        body = changed(plan, "metadata/namespace", namespace)
        path = place("argoproj.io/v1alpha1", "workflows", namespace)
        what = {SHOP: "a namespace that opted in", SYSTEM: "our own namespace"}
        yield Attack(f"a plan in {what.get(namespace, namespace)}", "launcher", (post(path, body),))


def _launcher_updates() -> Iterator[Attack]:
    def attack(title: str, *bodies: Json) -> Attack:
        return Attack(title, "launcher", tuple(merge(RUNNING, body) for body in bodies))

    stop: Json = {"spec": {"shutdown": "Stop"}}
    yield attack(
        "`shutdown` with another value",
        *({"spec": {"shutdown": value}} for value in ("Terminate", "stop", "", "x")),
    )
    for name, value in fields.values():
        if name in {"shutdown", *ALLOWED}:
            continue
        change = {"spec": {name: value}}
        both = {"spec": {name: value, "shutdown": "Stop"}}
        yield attack(f"`spec.{name}`, alone and with a stop", change, both)
    plan = workflow(RUN)
    parameters = plan["spec"]["arguments"]["parameters"]
    yield attack(
        "another template",
        *(
            {"spec": {"workflowTemplateRef": ref, **more}}
            for ref in ({"name": "scale-workload-v1"}, {"clusterScope": True}, None)
            for more in ({}, {"shutdown": "Stop"})
        ),
    )
    yield attack(
        "other arguments",
        {"spec": {"arguments": {"parameters": parameters[:3]}}},
        {
            "spec": {
                "arguments": {"parameters": [{"name": "plan", "value": "x"}]},
                "shutdown": "Stop",
            }
        },
        {"spec": {"arguments": None, "shutdown": "Stop"}},
    )
    yield attack(
        "a change of nothing", {}, {"metadata": {"labels": {"tiphys.io/incident": "incident-1"}}}
    )
    yield attack(
        "labels, with a stop",
        *(
            {"metadata": {"labels": labels}, **stop}
            for labels in (
                {"x": "y"},
                {"tiphys.io/incident": "another"},
                {"tiphys.io/incident": None},
                {"workflows.argoproj.io/completed": "true"},
                None,
            )
        ),
    )
    yield attack(
        "annotations, with a stop", {"metadata": {"annotations": {"tiphys.io/x": "y"}}, **stop}
    )
    yield attack("finalizers, with a stop", {"metadata": {"finalizers": ["x/y"]}, **stop})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}
    yield attack("owners, with a stop", {"metadata": {"ownerReferences": [owner]}, **stop})
    yield attack("generateName, with a stop", {"metadata": {"generateName": "x"}, **stop})
    yield attack(
        "the status, alone and with a stop",
        {"status": {"phase": "Succeeded"}},
        {"status": {"phase": "Succeeded"}, **stop},
        {"status": None, **stop},
    )
    whole = {key: workflow(RUN)[key] for key in ("apiVersion", "kind", "spec")}
    forced = changed(whole, "spec/shutdown", "Terminate")
    stopped = changed(whole, "spec/shutdown", "Stop")
    yield Attack(
        "server-side apply over a running Workflow",
        "launcher",
        (
            apply(RUNNING, forced),
            apply(RUNNING, changed(stopped, "spec/entrypoint", "x")),
            apply(RUNNING, changed(stopped, "metadata/labels/x", "y")),
        ),
    )
    steps = [{"op": "add", "path": "/spec/entrypoint", "value": "rollback"}]
    yield Attack(
        "a JSON patch",
        "launcher",
        (Request("PATCH", RUNNING, steps, "application/json-patch+json"),),
    )


def _other_updates() -> Iterator[Attack]:
    for who in OTHERS:
        yield Attack("`shutdown: Stop`", who, (merge(RUNNING, {"spec": {"shutdown": "Stop"}}),))
        yield Attack("the status", who, (merge(RUNNING, {"status": {"phase": "Succeeded"}}),))
    yield Attack(
        "what a Workflow was started with",
        "controller",
        (
            merge(RUNNING, {"spec": {"workflowTemplateRef": {"name": "scale-workload-v1"}}}),
            merge(
                RUNNING, {"spec": {"arguments": {"parameters": [{"name": "plan", "value": "x"}]}}}
            ),
            merge(RUNNING, {"spec": {"arguments": None}}),
        ),
    )
    yield Attack("the spec", "collector", (merge(RUNNING, {"spec": {"suspend": True}}),))
    yield Attack("the status", "collector", (merge(RUNNING, {"status": {"phase": "Failed"}}),))


def _deletions() -> list[Attack]:
    found = [
        Attack("a running Workflow", who, (delete(RUNNING), delete(RUNNING, gracePeriodSeconds=0)))
        for who in (
            "launcher",
            "gateway",
            "agents",
            "act-restart-pod",
            "act-unknown",
            "administrator",
        )
    ]
    found += [
        Attack("all Workflows at once", who, (delete(WORKFLOWS),))
        for who in ("launcher", "administrator")
    ]
    return found

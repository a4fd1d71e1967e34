"""Attacks on what may be started: WorkflowTemplates, the catalogue, Argo's other kinds."""

from collections.abc import Iterator
from typing import Any

from asking import Json, Request, place
from attack import Attack, Section, changed, delete, merge, post, without
from garrison import ACTIONS, STEP, SYSTEM, workflow

from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.render import RenderSettings, workflow_template

TEMPLATES = place("argoproj.io/v1alpha1", "workflowtemplates", ACTIONS)
PUBLISHED = f"{TEMPLATES}/restart-pod-v1"
CATALOGUE = place("v1", "configmaps", SYSTEM, "tiphys-catalogue")
NOT_PUBLISHERS = (
    "launcher",
    "gateway",
    "agents",
    "controller",
    "act-restart-pod",
    "act-unknown",
    "administrator",
)
ENTRY = "plan,notAfter,signature,target"
RUN, ROLLBACK = "spec/templates/1", "spec/templates/3"
_CONTAINER = f"{RUN}/containerSet/containers/0"


def template(number: int = 2) -> Json:
    """Give a template as we render it, under a number that is not published yet."""
    settings = RenderSettings(image=STEP, public_key="ab" * 32, namespace=ACTIONS)
    found: Any = workflow_template(settings, find("restart-pod"))
    return changed(found, "metadata/name", f"restart-pod-v{number}")


def sections() -> list[Section]:
    """Give all of them."""
    return [
        ("WorkflowTemplates by anybody but a publisher", "", list(_not_published())),
        (
            "WorkflowTemplates that a publisher gets wrong",
            "Each starts from a template that is accepted, with one thing changed.",
            [*_malformed(), *_malformed_code()],
        ),
        ("A published WorkflowTemplate changed by a publisher", "", list(_republished())),
        ("The catalogue", "", list(_catalogue())),
        (
            "Argo's other kinds",
            (
                "What has no namespace can be refused to our own identities only: "
                "other teams may have an Argo of their own."
            ),
            list(_other_kinds()),
        ),
    ]


def _not_published() -> Iterator[Attack]:
    for who in NOT_PUBLISHERS:
        yield Attack("a new template", who, (post(TEMPLATES, template()),))
        yield Attack(
            "a published template changed",
            who,
            (
                merge(PUBLISHED, {"spec": {"serviceAccountName": "act-scale-workload"}}),
                merge(PUBLISHED, {"metadata": {"labels": {"x": "y"}}}),
            ),
        )
        yield Attack("a published template deleted", who, (delete(PUBLISHED),))
    yield Attack("all templates deleted at once", "administrator", (delete(TEMPLATES),))


def _attack(title: str, *bodies: Json) -> Attack:
    return Attack(title, "publisher", tuple(post(TEMPLATES, body) for body in bodies))


def _with(title: str, *changes: tuple[str, Any]) -> Attack:
    return _attack(title, *(changed(template(), path, value) for path, value in changes))


def _malformed() -> Iterator[Attack]:
    base = template()
    yield _with(
        "a name that is not `<action>-v<number>`",
        ("metadata/name", "restart-pod"),
        ("metadata/name", "scale-workload-v9"),
        ("metadata/name", "restart-pod-vx"),
        ("metadata/name", "restart-pod-v1.x"),
        ("metadata/labels", {}),
    )
    yield _with("another action's account", ("spec/serviceAccountName", "act-scale-workload"))
    yield _with("no action's account", ("spec/serviceAccountName", "default"))
    yield _attack("no account", without(base, "spec/serviceAccountName"))
    fields = {
        "podSpecPatch": "{}",
        "hostNetwork": True,
        "hostAliases": [{"ip": "1.2.3.4"}],
        "executor": {"serviceAccountName": "default"},
        "artifactGC": {"podSpecPatch": "{}"},
        "workflowTemplateRef": {"name": "scale-workload-v1"},
        "volumes": [{"name": "x"}],
        "volumeClaimTemplates": [{"spec": {}}],
        "hooks": {"x": {"template": "rollback"}},
        "templateDefaults": {"timeout": "1m"},
        "suspend": True,
        "shutdown": "Terminate",
        "workflowMetadata": {"labels": {"x": "y"}},
        "schedulerName": "x",
        "retryStrategy": {"limit": 9},
        "dnsPolicy": "None",
        "podDisruptionBudget": {"maxUnavailable": 0},
        "parallelism": 1,
    }
    for name, value in fields.items():
        yield _with(f"`spec.{name}`", (f"spec/{name}", value))
    for name in (
        "activeDeadlineSeconds",
        "onExit",
        "synchronization",
        "ttlStrategy",
        "arguments",
        "entrypoint",
    ):
        yield _attack(f"no `spec.{name}`", without(base, f"spec/{name}"))
    yield _with(
        "parameters with values, other ones, or artifacts",
        ("spec/arguments/parameters/0/value", "x"),
        ("spec/arguments/parameters/0/name", "x"),
        ("spec/arguments/artifacts", [{"name": "x"}]),
        ("spec/arguments/parameters", []),
    )
    yield _with(
        "another mutex, or a semaphore",
        ("spec/synchronization/mutexes/0/name", "x"),
        ("spec/synchronization/mutexes/0/namespace", "default"),
        ("spec/synchronization/semaphores", [{"namespace": "x"}]),
        ("spec/synchronization/mutexes", [{"name": "{{workflow.parameters.plan}}"}]),
    )
    kinds: dict[str, Any] = {
        "script": {"image": STEP, "command": ["tiphys-step"], "source": "x"},
        "resource": {"action": "get", "manifest": "x"},
        "http": {"url": "http://127.0.0.1"},
        "plugin": {"x": {}},
        "suspend": {},
        "dag": {"tasks": [{"name": "a", "template": "run"}]},
        "data": {
            "source": {"artifactPaths": {"name": "x", "s3": {"key": "x"}}},
            "transformation": [{"expression": "x"}],
        },
    }
    for name, value in kinds.items():
        yield _with(
            f"a template of type {name}", ("spec/templates/0", {"name": "steps", name: value})
        )
    more: dict[str, Any] = {
        "podSpecPatch": "{}",
        "initContainers": [{"name": "x", "image": "x", "command": ["x"]}],
        "sidecars": [{"name": "x", "image": "x", "command": ["x"]}],
        "serviceAccountName": "default",
        "executor": {"serviceAccountName": "default"},
        "retryStrategy": {"limit": 9},
        "inputs": {"parameters": [{"name": "x"}]},
        "daemon": True,
        "hostAliases": [{"ip": "1.2.3.4"}],
        "archiveLocation": {"archiveLogs": True},
        "memoize": {"key": "x", "maxAge": "1m", "cache": {"configMap": {"name": "x", "key": "x"}}},
        "automountServiceAccountToken": False,
        "synchronization": {"mutexes": [{"name": "x"}]},
    }
    for name, value in more.items():
        yield _with(f"`{name}` in a template", (f"{RUN}/{name}", value))
    step = "spec/templates/0/steps/0/0"
    yield _with(
        "a step that leaves its WorkflowTemplate",
        (step, {"name": "run", "templateRef": {"name": "scale-workload-v1", "template": "run"}}),
        (
            step,
            {"name": "run", "templateRef": {"name": "x", "template": "x", "clusterScope": True}},
        ),
        (step, {"name": "run", "inline": {"container": {"image": "x", "command": ["x"]}}}),
    )
    yield _with(
        "a step that is repeated, passed over or does more",
        (f"{step}/withItems", ["1", "2"]),
        (f"{step}/withParam", "{{workflow.parameters.plan}}"),
        (f"{step}/continueOn", {"failed": True}),
        (f"{step}/onExit", "rollback"),
        (f"{step}/when", "1 == 2"),
        ("spec/templates/2/steps/0/0/when", "{{workflow.parameters.plan}}"),
        (f"{step}/hooks", {"x": {"template": "rollback"}}),
        (f"{step}/arguments", {"parameters": [{"name": "x", "value": "y"}]}),
    )
    retries = f"{ROLLBACK}/retryStrategy"
    yield _with(
        "a rollback that is tried again without end",
        *((f"{retries}/limit", limit) for limit in ("10", 10, "-1", "", "{{workflow.name}}")),
        (retries, {"retryPolicy": "Always"}),
        (retries, {}),
        (f"{retries}/affinity", {"nodeAntiAffinity": {}}),
    )
    yield _with(
        "a containerSet with retries, or two of them",
        (f"{RUN}/containerSet/retryStrategy", {"retries": 3}),
        ("spec/templates/0", {**base["spec"]["templates"][1], "name": "steps"}),
    )


def _malformed_code() -> Iterator[Attack]:
    rollback = f"{ROLLBACK}/container"
    yield _with(
        "volumes that are not empty folders",
        *(
            (f"{where}/volumes/0", {"name": "work", kind: value})
            for where in (RUN, ROLLBACK)
            for kind, value in {
                "hostPath": {"path": "/"},
                "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]},
                "secret": {"secretName": "x"},
                "configMap": {"name": "x"},
                "persistentVolumeClaim": {"claimName": "x"},
                "csi": {"driver": "x"},
            }.items()
        ),
    )
    yield _with(
        "outputs from elsewhere",
        (f"{RUN}/outputs/artifacts", [{"name": "x", "path": "/x"}]),
        (f"{RUN}/outputs/parameters/0/globalName", "x"),
        (f"{RUN}/outputs/parameters/0/valueFrom", {"expression": "1"}),
        (f"{RUN}/outputs/exitCode", "0"),
    )
    for where, called in ((_CONTAINER, "containerSet"), (rollback, "container")):
        yield _with(
            f"`{{{{` in a {called}'s command or args",
            (f"{where}/command", ["{{workflow.parameters.plan}}"]),
            (f"{where}/command", ["tiphys-step", "{{workflow.parameters.plan}}"]),
            (f"{where}/args", ["{{workflow.parameters.plan}}"]),
            (f"{where}/args", ["{{=sprig.env('X')}}"]),
        )
        yield _with(
            f"another program in a {called}",
            (f"{where}/command", ["sh", "-c"]),
            (f"{where}/args", ["act", "x"]),
            (f"{where}/args", ["x"]),
            (f"{where}/args", []),
        )
        yield _with(
            f"`{{{{` in a {called}'s image",
            (f"{where}/image", "{{workflow.parameters.plan}}"),
        )
        yield _with(
            f"variables of a {called} from elsewhere",
            (
                f"{where}/env/0",
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}},
            ),
            (
                f"{where}/env/0",
                {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "x"}}},
            ),
        )
        for name, value in {
            "envFrom": [{"secretRef": {"name": "x"}}],
            "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
            "livenessProbe": {"exec": {"command": ["x"]}},
            "volumeDevices": [{"name": "x", "devicePath": "/dev/x"}],
            "workingDir": "/",
            "stdin": True,
        }.items():
            yield _with(f"`{name}` in a {called}", (f"{where}/{name}", value))


def _republished() -> Iterator[Attack]:
    base = template(1)

    def attack(title: str, *changes: tuple[str, Any]) -> Attack:
        bodies = [changed(base, path, value) for path, value in changes]
        return Attack(title, "publisher", tuple(_replaced(body) for body in bodies))

    yield attack(
        "another beginning or end", ("spec/entrypoint", "rollback"), ("spec/onExit", "steps")
    )
    steps = base["spec"]["templates"]
    yield attack(
        "other steps, or in another order",
        ("spec/templates/0/steps/0/0/template", "rollback"),
        ("spec/templates", steps[:3]),
        ("spec/templates", [*steps, {**steps[3], "name": "more"}]),
        ("spec/templates/3/name", "other"),
        (f"{_CONTAINER}/name", "other"),
        (f"{_CONTAINER}/args", ["act"]),
        (f"{RUN}/containerSet/containers/1/dependencies", ["main"]),
        (f"{ROLLBACK}/container/args", ["act"]),
        ("spec/templates/2/steps/0/0", {"name": "rollback", "template": "rollback"}),
    )
    yield attack("another account", ("spec/serviceAccountName", "act-scale-workload"))
    yield attack("another mutex", ("spec/synchronization/mutexes/0/name", "x"))


def _replaced(body: Json) -> Request:
    # A merge patch replaces lists, and needs no resourceVersion.
    return merge(
        PUBLISHED, {"metadata": {"labels": body["metadata"]["labels"]}, "spec": body["spec"]}
    )


def _catalogue() -> Iterator[Attack]:
    for who in NOT_PUBLISHERS:
        yield Attack(
            "another entry, or none",
            who,
            (merge(CATALOGUE, {"data": {"x-v1": ENTRY}}), merge(CATALOGUE, {"data": None})),
        )
        yield Attack("the catalogue deleted", who, (delete(CATALOGUE),))
    yield Attack(
        "an entry that no template of ours can have",
        "publisher",
        (
            merge(CATALOGUE, {"data": {"restart-pod-v1": ""}}),
            merge(CATALOGUE, {"data": {"restart-pod-v1": "plan"}}),
            merge(CATALOGUE, {"data": {"x": ENTRY}}),
        ),
    )


def _other_kinds() -> Iterator[Attack]:
    inner = workflow()["spec"]
    kinds: dict[str, tuple[str, Json]] = {
        "CronWorkflow": ("cronworkflows", {"schedules": ["* * * * *"], "workflowSpec": inner}),
        "WorkflowEventBinding": (
            "workfloweventbindings",
            {
                "event": {"selector": "true"},
                "submit": {"workflowTemplateRef": {"name": "restart-pod-v1"}},
            },
        ),
        "WorkflowTaskSet": ("workflowtasksets", {"tasks": {}}),
        "WorkflowArtifactGCTask": ("workflowartifactgctasks", {"artifactsByNode": {}}),
    }
    for kind, (plural, spec) in kinds.items():
        body = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": "x", "namespace": ACTIONS},
            "spec": spec,
        }
        path = place("argoproj.io/v1alpha1", plural, ACTIONS)
        for who in (
            "launcher",
            "gateway",
            "agents",
            "controller",
            "act-restart-pod",
            "administrator",
            "publisher",
        ):
            yield Attack(f"a {kind}", who, (post(path, body),))
    cluster = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ClusterWorkflowTemplate",
        "metadata": {"name": "attack-x"},
        "spec": {
            "entrypoint": "x",
            "templates": [{"name": "x", "container": {"image": "x", "command": ["x"]}}],
        },
    }
    for who in ("launcher", "gateway", "agents", "act-restart-pod"):
        yield Attack(
            "a ClusterWorkflowTemplate",
            who,
            (post(place("argoproj.io/v1alpha1", "clusterworkflowtemplates"), cluster),),
        )

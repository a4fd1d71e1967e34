"""From an action to what the cluster must hold: WorkflowTemplate, ServiceAccount, Roles, catalogue.

Invariants: parameters reach code through environment variables only; a step's pod runs without
privilege, as its action's ServiceAccount, which has exactly the action's rights in namespaces that
opted in; rollback runs after every end but success.

hera drops unknown keywords silently: the tests validate all of it against Argo's own CRD schemas.
"""

from typing import cast

from hera.workflows import models as m
from pydantic import BaseModel, ConfigDict, Field

from tiphys.policies.model import Json
from tiphys.workflow_templates import apart
from tiphys.workflow_templates.action import EXIT_CODES, Action, Result, StepName
from tiphys.workflow_templates.catalogue import every, template_name
from tiphys.workflow_templates.fenced import LONGEST_HOLD
from tiphys.workflow_templates.identities import (
    ACTION_LABEL,
    access,
    account_name,
    cluster_access,
    identities,
)
from tiphys.workflow_templates.verification import LONGEST_WATCH

PARAMETERS = ("plan", "notAfter", "signature", "target")
"""What every Workflow is given."""
CATALOGUE = "tiphys-catalogue"
_WORK = "/tmp/tiphys"  # noqa: S108  an emptyDir of the step's own pod
_OUTCOME = f"{_WORK}/outcome"
_STARTING = 900
"""Seconds that a Workflow may wait for its pod: `notAfter` is at most that far away."""
_FINAL = sorted(EXIT_CODES[r] for r in (Result.REFUSED, Result.NOT_OURS, Result.NOT_UNDONE))
"""How a rollback exits that is not tried again."""
_STARTING_UP = 60
"""Seconds that rollback's process may take beside its own deadline."""


class RenderSettings(BaseModel):
    """What an installation decides about its templates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    """The step image, by digest where it can be."""
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The launcher's Ed25519 key, hex."""
    namespace: str = "tiphys-actions"
    """Where Workflows run."""
    catalogue_namespace: str = "tiphys-system"
    """Where admission finds the catalogue."""
    name_prefix: str = "tiphys"
    """The first part of the names of what is cluster-wide."""
    prometheus_url: str = ""
    """Empty: verify asks the workload alone."""
    image_pull_policy: str = "IfNotPresent"
    priority_class: str = ""
    """So that steps run on a full cluster; the class must exist. Empty: none."""
    tolerate_pressure: bool = True
    """Run on nodes that are short of something, too."""
    user: int = Field(default=65532, ge=1)
    """The uid that steps run as."""
    keep_days: int = Field(default=7, ge=7)
    """How long ended Workflows stay readable."""
    verify_share: float = Field(default=1.0, gt=0, le=1)
    """The share of an action's verify deadline that is used: the sandbox is fast."""


def manifests(settings: RenderSettings) -> list[dict[str, Json]]:
    """Give everything that belongs into Tiphys' own namespaces, in the order to apply it."""
    found: list[dict[str, Json]] = []
    for action in every():
        found += identities(action, settings.namespace)
        found.append(workflow_template(settings, action))
    catalogue: dict[str, Json] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CATALOGUE, "namespace": settings.catalogue_namespace},
        "data": {**catalogue_entries()},
    }
    return [*found, catalogue]


def role_bindings(settings: RenderSettings, namespace: str) -> list[dict[str, Json]]:
    """Give the Roles and RoleBindings that let the actions work in a namespace that opted in."""
    return [one for action in every() for one in access(action, namespace, settings.namespace)]


def cluster_role_bindings(settings: RenderSettings, *, nodes: bool) -> list[dict[str, Json]]:
    """Give what lets the actions work outside namespaces: those on nodes, or all the others."""
    return [
        one
        for action in every()
        if action.works_on_nodes is nodes
        for one in cluster_access(action, settings.namespace, settings.name_prefix)
    ]


def catalogue_entries() -> dict[str, str]:
    """Give each template's name and the parameters that its Workflows must carry."""
    return {template_name(action): ",".join(parameters_of(action)) for action in every()}


def parameters_of(action: Action) -> tuple[str, ...]:
    """Give what a Workflow of an action is given, in the order of the catalogue's entries."""
    return (*PARAMETERS, apart.NODE) if apart.works_there(action) else PARAMETERS


# --- the WorkflowTemplate ---------------------------------------------------------------------


def workflow_template(settings: RenderSettings, action: Action) -> dict[str, Json]:
    """Render one action's WorkflowTemplate."""
    limits = action.deadlines
    forward = _STARTING + limits.precheck + limits.act + limits.verify + LONGEST_WATCH
    template = m.WorkflowTemplate(
        api_version="argoproj.io/v1alpha1",
        kind="WorkflowTemplate",
        metadata=m.ObjectMeta(
            name=template_name(action),
            namespace=settings.namespace,
            labels={ACTION_LABEL: action.name},
            annotations={
                "workflows.argoproj.io/description": action.summary,
                "tiphys.io/undo": action.undo,
            },
        ),
        spec=m.WorkflowSpec(
            entrypoint="steps",
            on_exit="exit",
            arguments=m.Arguments(parameters=[m.Parameter(name=n) for n in parameters_of(action)]),
            service_account_name=account_name(action),
            # The executor reports as the same account; an account of its own would need a
            # long-lived token in a Secret (Argo: `executor.serviceAccountName`).
            automount_service_account_token=True,
            active_deadline_seconds=forward,
            synchronization=m.Synchronization(
                mutexes=[m.Mutex(name="{{workflow.parameters.target}}")]
            ),
            ttl_strategy=m.TTLStrategy(seconds_after_completion=settings.keep_days * 86_400),
            pod_gc=m.PodGC(strategy="OnWorkflowCompletion"),
            pod_metadata=m.Metadata(labels={ACTION_LABEL: action.name}),
            pod_priority_class_name=settings.priority_class or None,
            security_context=m.PodSecurityContext(
                run_as_non_root=True,
                run_as_user=settings.user,
                run_as_group=settings.user,
                seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
            ),
            tolerations=_tolerations() if settings.tolerate_pressure else None,
            affinity=_affinity(action),
            templates=_templates(settings, action),
        ),
    )
    return cast(
        "dict[str, Json]", template.model_dump(mode="json", by_alias=True, exclude_none=True)
    )


def _templates(settings: RenderSettings, action: Action) -> list[m.Template]:
    unless_done = m.WorkflowStep(
        name="rollback", template="rollback", when="{{workflow.status}} != Succeeded"
    )
    return [
        _steps("steps", m.WorkflowStep(name="run", template="run")),
        _run(settings, action),
        _steps("exit", unless_done),
        _rollback(settings, action),
    ]


def _steps(name: str, step: m.WorkflowStep) -> m.Template:
    return m.Template(name=name, steps=[m.ParallelSteps(root=[step])])


def _run(settings: RenderSettings, action: Action) -> m.Template:
    """Put three steps into one pod; Argo takes its outputs from the container named `main`."""

    def node(name: str, step: StepName, after: list[str] | None = None) -> m.ContainerNode:
        return m.ContainerNode(
            name=name,
            image=settings.image,
            image_pull_policy=settings.image_pull_policy,
            command=["tiphys-step"],
            args=[step.value],
            dependencies=after,
            env=_environment(settings, action),
            resources=_resources(),
            security_context=_locked(),
        )

    return m.Template(
        name="run",
        container_set=m.ContainerSetTemplate(
            containers=[
                node("precheck", StepName.PRECHECK),
                node("act", StepName.ACT, ["precheck"]),
                node("main", StepName.VERIFY, ["act"]),
            ],
            volume_mounts=[m.VolumeMount(name="work", mount_path=_WORK)],
        ),
        outputs=_outputs(),
        volumes=[_volume()],
    )


def _rollback(settings: RenderSettings, action: Action) -> m.Template:
    limit = action.deadlines.rollback + LONGEST_HOLD + _STARTING_UP
    return m.Template(
        name="rollback",
        container=m.Container(
            image=settings.image,
            image_pull_policy=settings.image_pull_policy,
            command=["tiphys-step"],
            args=[StepName.ROLLBACK.value],
            env=_environment(settings, action),
            resources=_resources(),
            security_context=_locked(),
            volume_mounts=[m.VolumeMount(name="work", mount_path=_WORK)],
        ),
        active_deadline_seconds=m.IntOrString(limit),
        # A node may be drained, and an API server be away, in the middle of a rollback; it is
        # resumable, and once it has said how the target stands nothing is won by asking again.
        retry_strategy=m.RetryStrategy(
            limit=m.IntOrString("3"),
            retry_policy="Always",
            expression=f"asInt(lastRetry.exitCode) not in {_FINAL}",
            backoff=m.Backoff(duration="5s", factor=m.IntOrString("2")),
        ),
        outputs=_outputs(),
        volumes=[_volume()],
    )


def _environment(settings: RenderSettings, action: Action) -> list[m.EnvVar]:
    values = {
        "TIPHYS_ACTION": template_name(action),
        "TIPHYS_PUBLIC_KEY": settings.public_key,
        "TIPHYS_PROMETHEUS_URL": settings.prometheus_url,
        "TIPHYS_VERIFY_SHARE": f"{settings.verify_share:g}",
        "TIPHYS_WORKFLOW": "{{workflow.name}}",
        "TIPHYS_PLAN": "{{workflow.parameters.plan}}",
        "TIPHYS_NOT_AFTER": "{{workflow.parameters.notAfter}}",
        "TIPHYS_SIGNATURE": "{{workflow.parameters.signature}}",
        "TIPHYS_TARGET": "{{workflow.parameters.target}}",
        apart.VARIABLE: _of_node(action),
        "TIPHYS_OUTCOME_FILE": _OUTCOME,
        "TIPHYS_TERMINATION_LOG": "/dev/termination-log",
    }
    return [m.EnvVar(name=name, value=value) for name, value in values.items() if value]


def _affinity(action: Action) -> m.Affinity | None:
    return m.Affinity.model_validate(apart.affinity()) if apart.works_there(action) else None


def _of_node(action: Action) -> str:
    return f"{{{{workflow.parameters.{apart.NODE}}}}}" if apart.works_there(action) else ""


def _outputs() -> m.Outputs:
    source = m.ValueFrom(path=_OUTCOME, default="")
    return m.Outputs(parameters=[m.Parameter(name="outcome", value_from=source)])


def _volume() -> m.Volume:
    return m.Volume(name="work", empty_dir=m.EmptyDirVolumeSource(size_limit=m.Quantity("1Mi")))


def _resources() -> m.ResourceRequirements:
    return m.ResourceRequirements(
        requests={"cpu": m.Quantity("50m"), "memory": m.Quantity("64Mi")},
        limits={"memory": m.Quantity("256Mi")},
    )


def _locked() -> m.SecurityContext:
    """Kubernetes' Pod Security Standards, level restricted, and a read-only root."""
    return m.SecurityContext(
        allow_privilege_escalation=False,
        capabilities=m.Capabilities(drop=["ALL"]),
        privileged=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
    )


def _tolerations() -> list[m.Toleration]:
    sick = ("disk-pressure", "memory-pressure", "pid-pressure")
    return [
        m.Toleration(key=f"node.kubernetes.io/{what}", operator="Exists", effect="NoSchedule")
        for what in sick
    ]

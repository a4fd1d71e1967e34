"""The kinds that the simulated API server knows."""

from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Resource:
    """One kind as its API group serves it."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    has_generation: bool = False
    """The server counts `metadata.generation`; nodes, ConfigMaps and PVCs have none."""

    @property
    def api_version(self) -> str:
        """Give `v1` or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Give the plural as error messages write it, such as `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def custom(self) -> bool:
        """Whether it is a custom resource, whose server behaves a little differently."""
        return self.group in {"argoproj.io", "autoscaling.k8s.io", _CAPI}

    def specified(self, obj: Obj) -> Any:
        """Give what `metadata.generation` counts the changes of."""
        if self.kind == "Deployment":
            return obj.get("spec"), obj["metadata"].get("annotations")
        if self.custom and "status" not in self.subresources:
            return {key: value for key, value in obj.items() if key != "metadata"}
        return obj.get("spec")


_STATUS = ("status",)
_SCALABLE = ("status", "scale")
_RBAC = "rbac.authorization.k8s.io"
_CAPI = "cluster.x-k8s.io"

RESOURCES: tuple[Resource, ...] = (
    Resource("", "v1", "namespaces", "Namespace", False, _STATUS),
    Resource("", "v1", "nodes", "Node", False, _STATUS),
    Resource("", "v1", "pods", "Pod", True, ("status", "log", "eviction"), True),
    Resource("", "v1", "services", "Service", True, _STATUS),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "events", "Event"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, _STATUS),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", False, _STATUS),
    Resource("", "v1", "limitranges", "LimitRange"),
    Resource("", "v1", "resourcequotas", "ResourceQuota", True, _STATUS),
    Resource("", "v1", "replicationcontrollers", "ReplicationController", True, _SCALABLE, True),
    Resource("apps", "v1", "deployments", "Deployment", True, _SCALABLE, True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", True, _SCALABLE, True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", True, _SCALABLE, True),
    Resource("apps", "v1", "daemonsets", "DaemonSet", True, _STATUS, True),
    Resource("batch", "v1", "jobs", "Job", True, _STATUS, True),
    Resource("batch", "v1", "cronjobs", "CronJob", True, _STATUS, True),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, _STATUS, True),
    Resource(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, _STATUS
    ),
    Resource(
        "autoscaling.k8s.io", "v1", "verticalpodautoscalers", "VerticalPodAutoscaler", True, (),
        True,
    ),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False),
    # Argo's Workflow CRD declares no status subresource: its controller writes whole objects.
    Resource("argoproj.io", "v1alpha1", "workflows", "Workflow", True, (), True),
    Resource("argoproj.io", "v1alpha1", "workflowtemplates", "WorkflowTemplate", True, (), True),
    Resource(
        "argoproj.io", "v1alpha1", "workflowtaskresults", "WorkflowTaskResult", True, (), True
    ),
    Resource(_CAPI, "v1beta2", "machinedeployments", "MachineDeployment", True, _SCALABLE, True),
    Resource(_CAPI, "v1beta2", "machinesets", "MachineSet", True, _SCALABLE, True),
    Resource(_CAPI, "v1beta2", "machines", "Machine", True, _STATUS, True),
)  # fmt: skip

BY_KIND = {resource.kind: resource for resource in RESOURCES}
BY_PLURAL = {(resource.group, resource.plural): resource for resource in RESOURCES}


def clone(value: Any) -> Any:
    """Copy a JSON value deeply, faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def set_defaults(obj: Obj) -> None:
    """Fill in, in place, the defaults that controllers and clients read back."""
    kind, spec = obj["kind"], obj.get("spec")
    if kind == "Namespace":
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"][
            "name"
        ]
        obj.setdefault("status", {"phase": "Active"})
    if kind == "Pod":
        obj.setdefault("status", {"phase": "Pending"})
    if not isinstance(spec, dict):
        return
    if kind in {"Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"}:
        spec.setdefault("replicas", 1)
    if kind == "Deployment":
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {"type": "RollingUpdate"})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
    if kind == "Job":
        spec.setdefault("backoffLimit", 6)
        spec.setdefault("completions", 1)
        spec.setdefault("parallelism", 1)
    template = spec.get("template", {}) if kind not in {"Pod", "Workflow"} else {}
    pod = spec if kind == "Pod" else template.get("spec")
    if isinstance(pod, dict) and "containers" in pod:
        pod.setdefault("restartPolicy", "Always")
        pod.setdefault("terminationGracePeriodSeconds", 30)


def complaint(obj: Obj) -> str:
    """Say what is wrong with the object's spec, or nothing."""
    spec = obj.get("spec") or {}
    if obj["kind"] == "Pod" and not spec.get("containers"):
        return "spec.containers: Required value"
    if obj["kind"] not in {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"}:
        return ""
    labels = spec.get("template", {}).get("metadata", {}).get("labels") or {}
    wanted = spec.get("selector", {}).get("matchLabels") or {}
    if not wanted or not wanted.items() <= labels.items():
        return "spec.template.metadata.labels: Invalid value: `selector` does not match"
    if not spec["template"].get("spec", {}).get("containers"):
        return "spec.template.spec.containers: Required value"
    return ""

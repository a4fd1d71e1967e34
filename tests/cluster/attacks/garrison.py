"""The names of the attackers' Tiphys, and what stands in it: pure data."""

from typing import Any

from asking import NOT_AFTER, Json
from own_attacks import RUN, attacks_by_action

from tiphys.workflow_templates.catalogue import every

RELEASE = "attack"
SYSTEM, ACTIONS, STOP, ARGO = (
    f"{RELEASE}-{name}" for name in ("system", "actions", "stop", "argo")
)
SHOP, ELSEWHERE = f"{RELEASE}-shop", f"{RELEASE}-elsewhere"
"""A namespace that opted in, and one that did not but has the same Roles and workloads."""
NAMESPACES = (SYSTEM, ACTIONS, STOP, ARGO, SHOP, ELSEWHERE)
ALL_RIGHTS = f"{RELEASE}-all-rights"
"""A group bound to cluster-admin: RBAC opened wide, so that only admission stands."""
PUBLISHER = f"{RELEASE}-publisher"
OTHER_RUN = "tiphys-" + "b" * 40
EXECUTOR, STEP, PAUSE = (
    f"docker.io/tiphys/{n}" for n in ("argoexec:v4.0.2", "step:dev", "pause:dev")
)
_NAMES = [action.name for action in every()]
ACTORS = {
    name: number
    for number, name in enumerate(sorted(_NAMES, key=lambda one: (one != "restart-pod", one)), 101)
}
"""The actions, with the last part of the names of their pods; most attacks are restart-pod's."""


def account(namespace: str, name: str) -> str:
    """Give a ServiceAccount's user name."""
    return f"system:serviceaccount:{namespace}:{name}"


USERS = {
    "launcher": account(SYSTEM, "tiphys-launcher"),
    "gateway": account(SYSTEM, "tiphys-gateway"),
    "agents": account(SYSTEM, "tiphys-agents"),
    "controller": account(ARGO, "argo"),
    "administrator": f"{RELEASE}-intruder",
    "publisher": PUBLISHER,
    "collector": "system:serviceaccount:kube-system:generic-garbage-collector",
    **{f"act-{name}": account(ACTIONS, f"act-{name}") for name in ACTORS},
    "act-unknown": account(ACTIONS, "act-unknown"),
}
ANCHOR = "tiphys-params-anchor"
PODS = {f"act-{name}": f"{RUN}-run-{number}" for name, number in ACTORS.items()}
PODS["act-unknown"] = f"{RUN}-run-100"


def namespaces() -> list[Json]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"tiphys.io/heal": "enabled"} if name == SHOP else {},
            },
        }
        for name in NAMESPACES
    ]


def all_rights() -> list[Json]:
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": ALL_RIGHTS}
    role = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "cluster-admin",
    }
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ALL_RIGHTS},
            "roleRef": role,
            "subjects": [group],
        }
    ]


def older() -> list[Json]:
    """Give what no policy lets in: a result of one run by another's name; a stop that is none."""
    stray = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": f"{RUN}-stray-101",
            "namespace": ACTIONS,
            "labels": {"workflows.argoproj.io/workflow": OTHER_RUN},
        },
    }
    return [stray, config_map(STOP, "stop-old")]


def config_map(namespace: str, name: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"key": "value"},
    }


VALUES = "values.tiphys.io/pool-size"


def fares(namespace: str, name: str = "fares", ending: str = "", **labels: str) -> Json:
    """Give a ConfigMap that opted in; `ending`: of the run's mark, with its value set or not."""
    made = config_map(namespace, name)
    digest = RUN.removeprefix("tiphys-")
    notes = {VALUES: "20\n30\n40\n", "values.tiphys.io/depth": "1\n2", "team": "shop"}
    notes |= {"values.tiphys.io/mode": "slow\nfast"}
    notes |= {"tiphys.io/run": f"{digest}.{ending}"} if ending else {}
    made["metadata"] |= {"labels": {"tiphys.io/heal": "enabled", **labels}, "annotations": notes}
    size = "40" if ending == "act" else "20"
    made["data"] = {"pool-size": size, "depth": "1", "currency": "EUR", "mode": "odd"}
    return made


NOWHERE = {"nodeSelector": {"tiphys.io/nowhere": "true"}}
"""No node takes such a pod, so no kubelet has a say in how it stands."""


def job(namespace: str, name: str, **spec: Any) -> Json:
    """Give a Job whose pods wait for a node for ever; with a deadline it fails instead."""
    pods = {"restartPolicy": "Never", "containers": [{"name": "app", "image": PAUSE}], **NOWHERE}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 6, "template": {"spec": pods}, **spec},
    }


def cron_job(namespace: str, name: str, **spec: Any) -> Json:
    """Give a CronJob that starts nothing, whatever it is set to."""
    meta = {"name": name, "namespace": namespace, "annotations": {"team": "shop"}}
    made = {"schedule": "0 0 1 1 *", "suspend": True, "failedJobsHistoryLimit": 9, **spec}
    made["jobTemplate"] = {"spec": job(namespace, "x")["spec"]}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": made}


CLAIMS = {"data": "", "growing": "", "raised-act": "act", "raised-kept": "kept"}
"""Claims by name, with the ending of the mark that the run has left on them."""
_FAST = f"{RELEASE}-fast"


def volumes(namespace: str) -> list[Json]:
    """Give a class that allows expansion, and what the claims of a namespace are bound to."""
    found: list[Json] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": _FAST},
            "provisioner": "tiphys.io/nobody",
            "allowVolumeExpansion": True,
        }
    ]
    for name in CLAIMS:
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _FAST,
            "claimRef": {"namespace": namespace, "name": name},
            "hostPath": {"path": "/nowhere"},
        }
        meta = {"name": f"{namespace}-{name}"}
        body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta}
        found.append({**body, "spec": spec})
    return found


def claim(namespace: str, name: str) -> Json:
    """Give a claim as it stands once it is bound."""
    notes = {"team": "shop"}
    if CLAIMS[name]:
        notes["tiphys.io/run"] = f"{RUN.removeprefix('tiphys-')}.{CLAIMS[name]}"
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": _FAST,
        "volumeName": f"{namespace}-{name}",
    }
    meta = {"name": name, "namespace": namespace, "annotations": notes}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": spec,
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }


def targets(namespace: str) -> list[Json]:
    def pods(name: str) -> Json:
        return {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "containers": [
                    {
                        "name": "app",
                        "image": PAUSE,
                        "imagePullPolicy": "IfNotPresent",
                        "securityContext": {"runAsUser": 1000},
                        "resources": {
                            "limits": {"cpu": "100m", "memory": "64Mi"},
                            "requests": {"cpu": "10m", "memory": "64Mi"},
                        },
                    },
                    {
                        "name": "side",
                        "image": PAUSE,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": {
                            "limits": {"memory": "64Mi"},
                            "requests": {"memory": "16Mi"},
                        },
                    },
                ],
            },
        }

    def workload(kind: str, name: str, replicas: int = 1) -> Json:
        more = {"serviceName": name} if kind == "StatefulSet" else {}
        made = pods(name)
        if name == "old":
            made["spec"] |= NOWHERE
        return {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "annotations": {"team": "shop"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": made,
                **more,
            },
        }

    def raised(kind: str, name: str, mark: str) -> Json:
        """Give a workload whose limit a run has raised, or put back."""
        made = workload(kind, f"raised-{name}", 0)
        made["metadata"]["annotations"]["tiphys.io/run"] = mark.removeprefix("tiphys-")
        return made

    marks = {end: f"{RUN}.{end}" for end in ("act", "back", "undone")}

    agent = workload("DaemonSet", "agent")
    del agent["spec"]["replicas"]
    agent["spec"]["template"]["spec"]["nodeSelector"] = {"tiphys.io/nowhere": "true"}
    lone = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "lone", "namespace": namespace},
        "spec": pods("lone")["spec"],
    }
    return [
        workload("Deployment", "web"),
        workload("StatefulSet", "db"),
        workload("Deployment", "small", 0),
        workload("StatefulSet", "small", 0),
        agent,
        *(
            raised(kind, name, mark)
            for kind in ("Deployment", "StatefulSet")
            for name, mark in (*marks.items(), ("other", f"{OTHER_RUN}.kept"))
        ),
        workload("Deployment", "old"),
        job(namespace, "work"),
        job(namespace, "late", activeDeadlineSeconds=1),
        cron_job(namespace, "report"),
        *(claim(namespace, name) for name in CLAIMS),
        event(f"{RUN}.old", namespace),
        lone,
        config_map(namespace, "settings"),
        config_map(namespace, "settings") | {"kind": "Secret", "data": {"key": "dmFsdWU="}},
        *(made for _, found in attacks_by_action() for made in found.objects(namespace)),
        fares(namespace),
        fares(namespace, "fares-act", "act"),
        fares(namespace, "fares-undone", "undone"),
        fares(namespace, "fares-closed", **{"tiphys.io/heal": "disabled"}),
    ]


def workflow(name: str = "tiphys-" + "c" * 40, **spec: Any) -> Json:
    """Give a Workflow as the launcher makes it."""
    values = {"plan": "cGxhbg", "notAfter": NOT_AFTER, "signature": "c2ln", "target": "uid-1"}
    given = [{"name": key, "value": value} for key, value in values.items()]
    labels = {
        "tiphys.io/incident": "incident-1",
        "workflows.argoproj.io/controller-instanceid": "tiphys",
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "namespace": ACTIONS, "labels": labels},
        "spec": {
            "workflowTemplateRef": {"name": "restart-pod-v1"},
            "arguments": {"parameters": given},
            **spec,
        },
    }


def step_pod(action: str, number: int, run: str = RUN) -> Json:
    """Give the pod that Argo's controller makes of a run; it waits for a node for ever."""
    locked = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 8737,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    name = {"name": "ARGO_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    mount = [{"name": "var-run-argo", "mountPath": "/var/run/argo"}]

    def container(called: str, image: str, command: list[str]) -> Json:
        return {
            "name": called, "image": image, "command": command, "env": [name],
            "imagePullPolicy": "IfNotPresent", "securityContext": locked, "volumeMounts": mount,
        }  # fmt: skip

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{run}-run-{number}",
            "namespace": ACTIONS,
            "labels": {"workflows.argoproj.io/workflow": run},
        },
        "spec": {
            "serviceAccountName": f"act-{action}",
            "restartPolicy": "Never",
            "nodeSelector": {"tiphys.io/nowhere": "true"},
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532},
            "initContainers": [container("init", EXECUTOR, ["argoexec", "init"])],
            "containers": [
                container("wait", EXECUTOR, ["argoexec", "wait"]),
                container(
                    "main", STEP, ["/var/run/argo/argoexec", "emissary", "--", "tiphys-step"]
                ),
            ],
            "volumes": [
                {"name": "var-run-argo", "emptyDir": {}},
                {"name": "tmp-dir-argo", "emptyDir": {}},
                {"name": "work", "emptyDir": {"sizeLimit": "1Mi"}},
            ],
        },
    }


def anchor() -> list[Json]:
    """Give a policy that judges nothing and stays: it keeps the API server reading ConfigMaps.

    An API server whose last binding with ConfigMaps as parameters goes never reads them again
    (kubernetes/kubernetes#130887), and tests come and go.
    """
    group = "admissionregistration.k8s.io/v1"
    nothing = {
        "apiGroups": ["anchor.tiphys.io"],
        "apiVersions": ["*"],
        "operations": ["CREATE"],
        "resources": ["nothing"],
    }
    return [
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": ANCHOR},
            "spec": {
                "failurePolicy": "Ignore",
                "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
                "matchConstraints": {"resourceRules": [nothing]},
                "validations": [{"expression": "true"}],
            },
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": ANCHOR},
            "spec": {
                "policyName": ANCHOR,
                "validationActions": ["Deny"],
                "paramRef": {
                    "namespace": "default",
                    "selector": {},
                    "parameterNotFoundAction": "Allow",
                },
            },
        },
    ]


def event(name: str, namespace: str) -> Json:
    """Give an Event as a run leaves it."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "db-0",
            "namespace": namespace,
        },
        "reason": "TiphysAct",
        "message": "acts",
        "type": "Normal",
    }

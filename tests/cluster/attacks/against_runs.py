"""Attacks on the namespace of the runs: pods, task results, accounts, rights, tokens, the stop."""

from collections.abc import Iterator
from typing import Any

from asking import Json, Request, place
from attack import Attack, Section, apply, changed, delete, merge, post, without
from garrison import ACTIONS, ACTORS, OTHER_RUN, RUN, STOP, step_pod

PODS = place("v1", "pods", ACTIONS)
POD = f"{PODS}/{RUN}-run-101"
RESULTS = place("argoproj.io/v1alpha1", "workflowtaskresults", ACTIONS)
STOPS = place("v1", "configmaps", STOP)
EVERYBODY = ("launcher", "gateway", "agents", "act-restart-pod", "act-unknown", "administrator")
NEW = "tiphys-" + "c" * 40
_MAIN = "spec/containers/1"


def sections() -> list[Section]:
    """Give all of them."""
    return [
        ("Pods among the runs, by anybody but Argo's controller", "", list(_strange_pods())),
        ("Pods that Argo's controller is made to create", "", list(_bad_pods())),
        ("Pods of runs changed", "", list(_changed_pods())),
        ("Task results that a pod may not report", "", list(_results())),
        ("Accounts, rights, Secrets and tokens among the runs", "", list(_surroundings())),
        (
            "The stop switch",
            "Engaging it is the gateway's; releasing it is a human's.",
            list(_stops()),
        ),
    ]


def _strange_pods() -> Iterator[Attack]:
    good = step_pod("restart-pod", 1, NEW)
    for who in (*EVERYBODY, "publisher"):
        yield Attack("a pod just like Argo's", who, (post(PODS, good),))
    for who in ("launcher", "gateway", "agents", "act-restart-pod", "act-unknown"):
        yield Attack("a command in a run's pod", who, (_exec(POD),))
    workloads: dict[str, tuple[str, str, Json]] = {
        "Job": ("batch/v1", "jobs", {"template": {"spec": {**good["spec"]}}}),
        "Deployment": (
            "apps/v1",
            "deployments",
            {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {**good["spec"], "restartPolicy": "Always"},
                },
            },
        ),
    }
    for kind, (version, plural, spec) in workloads.items():
        body = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": "x", "namespace": ACTIONS},
            "spec": spec,
        }
        for who in ("launcher", "gateway", "agents", "act-restart-pod"):
            yield Attack(f"a {kind} there", who, (post(place(version, plural, ACTIONS), body),))


def _exec(pod: str) -> Request:
    return Request("POST", f"{pod}/exec", query={"command": "id", "stdout": "true"}, stored=True)


def _bad_pods() -> Iterator[Attack]:
    good = step_pod("restart-pod", 1, NEW)

    def attack(title: str, *changes: tuple[str, Any]) -> Attack:
        bodies = [changed(good, path, value) for path, value in changes]
        return Attack(title, "controller", tuple(post(PODS, body) for body in bodies))

    yield attack(
        "a name of no Workflow",
        ("metadata/name", "x"),
        ("metadata/name", NEW),
        ("metadata/name", f"x-{NEW}-1"),
    )
    yield attack("no action's account", ("spec/serviceAccountName", "default"))
    yield attack(
        "another image",
        *(
            (f"spec/{where}/image", "docker.io/library/busybox")
            for where in ("containers/0", "containers/1", "initContainers/0")
        ),
    )
    more = {**good["spec"]["containers"][1], "name": "more", "image": "x"}
    yield attack(
        "one container more",
        ("spec/containers", [*good["spec"]["containers"], more]),
        ("spec/initContainers", [*good["spec"]["initContainers"], more]),
    )
    fields: dict[str, Any] = {
        "hostNetwork": True,
        "hostPID": True,
        "hostIPC": True,
        "shareProcessNamespace": True,
        "nodeName": "x",
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x"]}],
        "runtimeClassName": "x",
        "dnsConfig": {"nameservers": ["1.2.3.4"]},
        "hostname": "x",
        "setHostnameAsFQDN": True,
    }
    for name, value in fields.items():
        if name != "runtimeClassName":  # The API server asks for such a class first.
            yield attack(f"`{name}`", (f"spec/{name}", value))
    yield attack(
        "volumes",
        *(
            ("spec/volumes/2", {"name": "work", kind: value})
            for kind, value in {
                "hostPath": {"path": "/"},
                "secret": {"secretName": "x"},
                "configMap": {"name": "x"},
                "projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]},
                "nfs": {"server": "x", "path": "/"},
            }.items()
        ),
        *(
            ("spec/volumes/2", {"name": "kube-api-access-x", "projected": {"sources": [source]}})
            for source in (
                {"secret": {"name": "x"}},
                {"configMap": {"name": "x"}},
                {"serviceAccountToken": {"path": "x", "audience": "x"}},
            )
        ),
    )
    yield attack(
        "privileges",
        (f"{_MAIN}/securityContext/capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}),
        (f"{_MAIN}/securityContext/capabilities", {}),
        (f"{_MAIN}/securityContext/capabilities/drop", ["KILL"]),
        (f"{_MAIN}/securityContext/allowPrivilegeEscalation", True),
        (f"{_MAIN}/securityContext/allowPrivilegeEscalation", None),
        (f"{_MAIN}/securityContext", {"privileged": True, "capabilities": {"drop": ["ALL"]}}),
        (f"{_MAIN}/securityContext", None),
        ("spec/initContainers/0/securityContext", None),
    )
    yield attack(
        "root",
        (f"{_MAIN}/securityContext/runAsNonRoot", False),
        (f"{_MAIN}/securityContext/runAsUser", 0),
    )
    rootless = without(good, f"{_MAIN}/securityContext/runAsNonRoot")
    yield Attack(
        "root, by saying nothing",
        "controller",
        (post(PODS, without(rootless, "spec/securityContext")),),
    )
    yield attack(
        "a Secret's value, a host's port, a command at the end",
        (f"{_MAIN}/env/0", {"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}}),
        (
            f"{_MAIN}/env/0",
            {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "x"}}},
        ),
        (f"{_MAIN}/envFrom", [{"secretRef": {"name": "x"}}]),
        (f"{_MAIN}/ports", [{"containerPort": 80, "hostPort": 80}]),
        (f"{_MAIN}/lifecycle", {"preStop": {"exec": {"command": ["x"]}}}),
    )


def _changed_pods() -> Iterator[Attack]:
    image = {"spec": {"containers": [{"name": "main", "image": "x"}]}}
    strategic = "application/strategic-merge-patch+json"
    forms = (
        Request("PATCH", POD, image, strategic),
        merge(POD, {"spec": {"activeDeadlineSeconds": 1}}),
    )
    for who in ("controller", "collector"):
        yield Attack("another image or deadline", who, forms)
    for who in EVERYBODY:
        yield Attack("another image or deadline", who, forms)
        yield Attack("other labels", who, (merge(POD, {"metadata": {"labels": {"x": "y"}}}),))
    debug = {"spec": {"ephemeralContainers": [{"name": "x", "image": "x"}]}}
    for who in (*EVERYBODY, "controller", "publisher"):
        path = f"{POD}/ephemeralcontainers"
        yield Attack("an ephemeral container", who, (Request("PATCH", path, debug, strategic),))


def _results() -> Iterator[Attack]:
    mine, other = f"{RUN}-101", f"{OTHER_RUN}-101"

    def attack(title: str, name: str, run: str, **more: Any) -> Attack:
        return Attack(title, "act-restart-pod", (post(RESULTS, result(name, run, **more)),))

    yield attack("of another run's node", other, OTHER_RUN)
    yield attack("of another run's node under its own name", mine, OTHER_RUN)
    yield attack("of its own run under another's name", other, RUN)
    yield attack("of another node of its own run", f"{RUN}-102", RUN)
    yield attack("of its own node, never to be deleted", mine, RUN, finalizers=["x/y"])
    yield Attack(
        "without a Workflow",
        "act-restart-pod",
        (post(RESULTS, without(result(mine, RUN), "metadata/labels")),),
    )
    taken = {"metadata": {"labels": {"workflows.argoproj.io/workflow": RUN}}, "phase": "Succeeded"}
    path = f"{RESULTS}/{RUN}-stray-101"
    yield Attack("another run's result taken over", "act-restart-pod", (merge(path, taken),))
    yield Attack(
        "its own node's result", "act-restart-pod, unbound", (post(RESULTS, result(mine, RUN)),)
    )
    for who in ("launcher", "gateway", "agents", "administrator", "act-unknown"):
        yield Attack("any result", who, (post(RESULTS, result(mine, RUN)),))


def result(name: str, run: str, **metadata: Any) -> Json:
    """Give a task result as Argo's executor reports it."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": name,
            "namespace": ACTIONS,
            "labels": {"workflows.argoproj.io/workflow": run},
            **metadata,
        },
        "outputs": {"parameters": [{"name": "outcome", "value": "x"}]},
    }


def _surroundings() -> Iterator[Attack]:
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "Role", "name": "tiphys-launcher"}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    meta = {"name": "x", "namespace": ACTIONS}
    bodies: dict[str, tuple[str, str, Json]] = {
        "a ServiceAccount": ("v1", "serviceaccounts", {"kind": "ServiceAccount"}),
        "a Secret": ("v1", "secrets", {"kind": "Secret"}),
        "a Secret with an account's token": (
            "v1",
            "secrets",
            {
                "kind": "Secret",
                "type": "kubernetes.io/service-account-token",
                "metadata": {
                    **meta,
                    "annotations": {"kubernetes.io/service-account.name": "act-rollout-undo"},
                },
            },
        ),
        "a ConfigMap": ("v1", "configmaps", {"kind": "ConfigMap"}),
        "a Role": (f"{rbac}/v1", "roles", {"kind": "Role", "rules": []}),
        "a RoleBinding": (
            f"{rbac}/v1",
            "rolebindings",
            {"kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
        ),
    }
    for title, (version, plural, body) in bodies.items():
        whole = {"apiVersion": version, "metadata": meta, **body}
        for who in (*EVERYBODY, "controller"):
            yield Attack(title, who, (post(place(version, plural, ACTIONS), whole),))
    accounts = place("v1", "serviceaccounts", ACTIONS)
    for who in (*EVERYBODY, "controller"):
        asked = tuple(
            Request(
                "POST",
                f"{accounts}/act-{name}/token",
                {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
            )
            for name in ACTORS
        )
        yield Attack("a token of an action's account", who, asked)
        yield Attack(
            "a right of an action taken or changed",
            who,
            (
                delete(place(f"{rbac}/v1", "rolebindings", ACTIONS, "act-restart-pod-reports")),
                merge(
                    place(f"{rbac}/v1", "roles", ACTIONS, "act-restart-pod-reports"), {"rules": []}
                ),
            ),
        )
        yield Attack("an account deleted", who, (delete(f"{accounts}/act-restart-pod"),))


def stop(name: str = "stop-1", **more: Any) -> Json:
    """Give the ConfigMap that stops everything new."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": STOP, "labels": {"tiphys.io/stop": "true"}},
        "data": {"reason": "drill", "by": "x"},
        **more,
    }


def _stops() -> Iterator[Attack]:
    good = stop()

    def attack(title: str, *changes: tuple[str, Any]) -> Attack:
        bodies = [changed(good, path, value) for path, value in changes]
        return Attack(title, "gateway", tuple(post(STOPS, body) for body in bodies))

    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}
    yield attack("a stop that ends with its owner", ("metadata/ownerReferences", [owner]))
    yield attack("a stop that nobody can delete", ("metadata/finalizers", ["x/y"]))
    yield attack(
        "another name, label or annotation",
        ("metadata/name", "kube-root-ca.crt"),
        ("metadata/name", "x"),
        ("metadata/labels/x", "y"),
        ("metadata/labels", {}),
        ("metadata/labels/tiphys.io~1stop", "no"),
        ("metadata/annotations/x", "y"),
        ("metadata/generateName", "stop-"),
    )
    yield attack(
        "other contents",
        ("data/more", "x"),
        ("data/reason", "x" * 1025),
        ("binaryData/x", "eA=="),
        ("immutable", True),
    )
    engaged = f"{STOPS}/stop-old"
    for who in ("launcher", "gateway", "agents", "act-restart-pod", "act-unknown"):
        yield Attack(
            "a stop changed",
            who,
            (
                merge(engaged, {"metadata": {"labels": {"tiphys.io/stop": None}}}),
                apply(
                    engaged,
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "metadata": {"name": "stop-old"},
                        "data": {"reason": "x"},
                    },
                ),
            ),
        )
        yield Attack("a stop deleted", who, (delete(engaged),))
        if who != "gateway":
            yield Attack("a stop engaged", who, (post(STOPS, good),))
    yield Attack("all stops deleted at once", "gateway", (delete(STOPS),))

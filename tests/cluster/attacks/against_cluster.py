"""Attacks of our own identities on everything else: reading, writing, escalating."""

from collections.abc import Iterator

from asking import Json, Request, place
from attack import Attack, Section, changed, delete, merge, post
from garrison import ACTIONS, ACTORS, ARGO, SHOP, STOP, SYSTEM, USERS, step_pod

OURS = ("launcher", "gateway", "agents", *(f"act-{name}" for name in ACTORS))
RBAC = "rbac.authorization.k8s.io"
_WRITTEN_PLACES = (SHOP, SYSTEM, ACTIONS, "kube-system")


def sections() -> list[Section]:
    """Give all of them."""
    return [
        ("Writing elsewhere", "", [one for who in OURS for one in _writes(who)]),
        ("Gaining rights", "", [one for who in OURS for one in _escalations(who)]),
        (
            "Reading",
            "Admission is not asked about reads, impersonation and itself: RBAC alone refuses.",
            [one for who in OURS for one in _reads(who)],
        ),
    ]


def _objects(namespace: str) -> Iterator[tuple[str, str, Json]]:
    meta = {"name": "x", "namespace": namespace}
    pod = {"spec": {"containers": [{"name": "x", "image": "x"}]}}
    template = {"metadata": {"labels": {"a": "b"}}, **pod}
    selected = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    job = {"template": {"spec": {**pod["spec"], "restartPolicy": "Never"}}}
    for version, plural, body in (
        ("v1", "pods", {"kind": "Pod", **pod}),
        ("v1", "configmaps", {"kind": "ConfigMap"}),
        ("v1", "secrets", {"kind": "Secret"}),
        ("v1", "serviceaccounts", {"kind": "ServiceAccount"}),
        ("apps/v1", "deployments", {"kind": "Deployment", "spec": selected}),
        ("apps/v1", "daemonsets", {"kind": "DaemonSet", "spec": selected}),
        ("batch/v1", "jobs", {"kind": "Job", "spec": job}),
        (
            "batch/v1",
            "cronjobs",
            {"kind": "CronJob", "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}},
        ),
    ):
        yield version, plural, {"apiVersion": version, "metadata": meta, **body}


def _writes(who: str) -> Iterator[Attack]:
    for namespace in _WRITTEN_PLACES:
        forms = tuple(
            post(place(version, plural, namespace), body)
            for version, plural, body in _objects(namespace)
        )
        where = namespace.removeprefix("attack-")
        yield Attack(f"a pod, a workload, a Secret or a ConfigMap in `{where}`", who, forms)
    web = place("apps/v1", "deployments", SHOP, "web")
    yield Attack(
        "a Deployment's owner, labels or end",
        who,
        (
            merge(web, {"metadata": {"labels": {"x": "y"}}}),
            delete(web),
        ),
    )
    space = place("v1", "namespaces", name=SHOP)
    yield Attack(
        "a namespace: opted in or out, made, deleted",
        who,
        (
            merge(space, {"metadata": {"labels": {"tiphys.io/heal": None}}}),
            merge(
                place("v1", "namespaces", name=SYSTEM),
                {"metadata": {"labels": {"tiphys.io/heal": "enabled"}}},
            ),
            post(
                place("v1", "namespaces"),
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "attack-x"}},
            ),
            delete(space),
            delete(place("v1", "namespaces", name=STOP)),
        ),
    )
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "attack-x"}}
    yield Attack(
        "a node",
        who,
        (
            post(place("v1", "nodes"), node),
            merge("@@NODE@@", {"spec": {"unschedulable": True}}),
            merge("@@NODE@@", {"metadata": {"labels": {"tiphys.io/heal": "enabled"}}}),
            delete("@@NODE@@"),
        ),
    )
    definition = place(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        name="workfloweventbindings.argoproj.io",
    )
    # A small one: the API server works on that of Workflows for half a minute.
    yield Attack("a definition of Argo's kinds", who, (delete(definition),))


def _escalations(who: str) -> Iterator[Attack]:
    subject = _subject(who)
    admin = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": {"name": "x", "namespace": SHOP},
        "rules": everything,
    }
    binding = {**role, "kind": "RoleBinding", "roleRef": admin, "subjects": [subject]}
    del binding["rules"]
    wide = changed(changed({**role}, "kind", "ClusterRole"), "metadata", {"name": "attack-x"})
    bound = changed(
        changed({**binding}, "kind", "ClusterRoleBinding"), "metadata", {"name": "attack-x"}
    )
    forms = [
        post(place(f"{RBAC}/v1", "clusterroles"), wide),
        post(place(f"{RBAC}/v1", "clusterrolebindings"), bound),
    ]
    for namespace in (SHOP, ACTIONS, SYSTEM):
        for plural, body in (("roles", role), ("rolebindings", binding)):
            inside = changed(body, "metadata/namespace", namespace)
            forms.append(post(place(f"{RBAC}/v1", plural, namespace), inside))
    yield Attack("a Role, a ClusterRole or a binding", who, tuple(forms))
    mine = place(f"{RBAC}/v1", "roles", ACTIONS, "tiphys-launcher")
    yield Attack("the launcher's Role widened", who, (merge(mine, {"rules": everything}),))
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    accounts = (
        (SYSTEM, "tiphys-launcher"),
        (ACTIONS, "act-rollout-undo"),
        (SHOP, "default"),
        ("kube-system", "default"),
    )
    yield Attack(
        "another account's token",
        who,
        tuple(
            post(place("v1", "serviceaccounts", namespace, name) + "/token", asked)
            for namespace, name in accounts
        ),
    )
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "attack-x"},
        "spec": {
            "request": "eA==",
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    yield Attack(
        "a client certificate",
        who,
        (post(place("certificates.k8s.io/v1", "certificatesigningrequests"), request),),
        rbac_alone=True,
    )
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "attack-x"},
    }
    group = "admissionregistration.k8s.io/v1"
    yield Attack(
        "the policies themselves",
        who,
        (
            delete(place(group, "validatingadmissionpolicies", name="attack-act")),
            delete(place(group, "validatingadmissionpolicybindings", name="attack-act")),
            merge(
                place(group, "validatingadmissionpolicies", name="attack-act"),
                {"spec": {"failurePolicy": "Ignore"}},
            ),
            post(place(group, "mutatingwebhookconfigurations"), hook),
        ),
        rbac_alone=True,
    )
    pods = Request("GET", place("v1", "pods", SHOP))
    yield Attack(
        "somebody else's name",
        who,
        tuple(
            Request("GET", pods.path, headers=headers)
            for headers in (
                (("Impersonate-User", "admin"),),
                (("Impersonate-User", USERS["controller"]),),
                (("Impersonate-User", USERS[who]), ("Impersonate-Group", "system:masters")),
            )
        ),
        rbac_alone=True,
    )
    later = step_pod("rollout-undo", 9)
    yield Attack(
        "a pod that runs as another action", who, (post(place("v1", "pods", ACTIONS), later),)
    )


def _subject(who: str) -> Json:
    _, _, namespace, name = USERS[who].split(":")
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _reads(who: str) -> Iterator[Attack]:
    def reads(title: str, *paths: str) -> Attack:
        return Attack(title, who, tuple(Request("GET", path) for path in paths), rbac_alone=True)

    spaces = (SHOP, SYSTEM, ACTIONS, ARGO, "kube-system")
    yield reads(
        "Secrets", place("v1", "secrets"), *(place("v1", "secrets", space) for space in spaces)
    )
    maps = tuple(place("v1", "configmaps", space) for space in (SHOP, SYSTEM, "kube-system"))
    yield reads("ConfigMaps", place("v1", "configmaps"), *maps)
    node = "@@NODE@@"
    yield reads(
        "the kubelet, through the API server", f"{node}/proxy/pods", f"{node}/proxy/configz"
    )
    yield reads(
        "other Roles", place(f"{RBAC}/v1", "clusterroles"), place(f"{RBAC}/v1", "roles", ACTIONS)
    )
    if who != "agents":
        yield reads("a pod's log", place("v1", "pods", SHOP, "db-0") + "/log")

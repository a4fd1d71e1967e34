"""A Tiphys of its own for the attackers: the chart's rights, templates and policies, no service.

It has its own namespaces and policy names, so that what else runs on the cluster neither disturbs
nor is disturbed. Pod Security is not enforced where its runs are: the policies stand alone.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml
from against_machines import MACHINES, NOBODYS, machine_set, machines
from against_pools import VERSION, pools
from asking import MERGE, Answer, Json, Request, Who, Wire, place, until
from attack import Outcome, Section
from garrison import (
    ACTIONS,
    ACTORS,
    ALL_RIGHTS,
    ANCHOR,
    ARGO,
    CLAIMS,
    ELSEWHERE,
    EXECUTOR,
    NAMESPACES,
    OTHER_RUN,
    PODS,
    PUBLISHER,
    RELEASE,
    RUN,
    SHOP,
    STEP,
    STOP,
    SYSTEM,
    USERS,
    all_rights,
    anchor,
    config_map,
    job,
    namespaces,
    older,
    step_pod,
    targets,
    volumes,
    workflow,
)  # fmt: skip
from outposts import nodes, run_pod

from tools.cluster.target import Target

KINDS = (
    "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ConfigMap",
    "WorkflowTemplate", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
)  # fmt: skip
CHECKOUT = Path(__file__).resolve().parents[3]
WORKFLOWS = place("argoproj.io/v1alpha1", "workflows", ACTIONS)
CONFIG_MAPS = place("v1", "configmaps", SHOP)
POLICIES = place("admissionregistration.k8s.io/v1", "validatingadmissionpolicies")


class Fort:
    """What stands when the attackers come."""

    def __init__(self, cluster: Target) -> None:
        self.cluster = cluster
        self.wire = Wire(cluster.kubeconfig)
        self.policies: dict[str, Json] = {}
        """The policies by their names, without the installation's own part."""
        self.tokens: dict[str, str] = {}
        self._facts: dict[str, str] = {}

    def who(self, name: str, *, wide: bool) -> Who:
        """Give an identity: wide, it may do everything that only RBAC would forbid.

        `act-x, unbound` is its account with a token that no pod has.
        """
        base, _, unbound = name.partition(", ")
        if not wide:
            return Who(USERS[base], token=self.tokens[name])
        pod = "" if unbound else PODS.get(base, "")
        return Who(USERS[base], groups=(ALL_RIGHTS,), pod=pod)

    def filled(self, request: Request) -> Request:
        """Put in what is known only now, such as uids."""
        text = json.dumps([request.path, request.body])
        for name, value in self._facts.items():
            text = text.replace(f"@@{name}@@", value)
        path, body = json.loads(text)
        return replace(request, path=path, body=body)

    def ask(self, request: Request, name: str, *, wide: bool) -> Answer:
        """Ask as one of the known names."""
        return self.wire.ask(self.filled(request), self.who(name, wide=wide))

    def judge(self, sections: Sequence[Section]) -> Sequence[Outcome]:
        """Let every attack come in each form: with its own rights, then with every right.

        What a policy refuses to a real token needs no second try.
        """
        found = [Outcome(title, one, (), ()) for title, _, attacks in sections for one in attacks]
        armed = [one for one in found if one.attack.who in self.tokens]
        own = dict(zip(map(id, armed), self._answers(armed, wide=False), strict=True))
        found = [replace(one, own=own.get(id(one), ())) for one in found]
        more = [one for one in found if one.wide_matters]
        wide = dict(zip(map(id, more), self._answers(more, wide=True), strict=True))
        return [replace(one, wide=wide.get(id(one), ())) for one in found]

    def _answers(self, outcomes: Sequence[Outcome], *, wide: bool) -> Iterator[tuple[Answer, ...]]:
        """Ask all forms of all attacks at once; give the answers attack by attack."""
        jobs = [job for one in outcomes for job in self.jobs(one, wide=wide)]
        answers = iter(self.wire.all(jobs))
        for one in outcomes:
            yield tuple(next(answers) for _ in one.attack.requests)

    def jobs(self, outcome: Outcome, *, wide: bool) -> Sequence[tuple[Request, Who]]:
        """Give an attack's forms, ready to be asked."""
        who = self.who(outcome.attack.who, wide=wide)
        return [(self.filled(request), who) for request in outcome.attack.requests]

    def weaken(self, policy: str, index: int | None) -> None:
        """Make one validation hold always; None: put the policy back as it was."""
        rules = [dict(rule) for rule in self.policies[policy]["spec"]["validations"]]
        if index is not None:
            rules[index] = {**rules[index], "expression": "true"}
        path = f"{POLICIES}/{RELEASE}-{policy}"
        body = {"spec": {"validations": rules}}
        answer = self.wire.ask(Request("PATCH", path, body, MERGE, stored=True))
        assert answer.status == 200, answer.message

    def _end(self, namespace: str, app: str, reason: str) -> None:
        """Let a pod that no node took be ended, as by a node; remember its name and uid.

        Its controller makes another, which nobody ends.
        """
        label = "batch.kubernetes.io/job-name" if app == "work" else "app"
        pods = place("v1", "pods", namespace)

        def found() -> list[Json]:
            listed = self.wire.want("GET", pods)["items"]
            labelled = [p for p in listed if p["metadata"].get("labels", {}).get(label) == app]
            return [p for p in labelled if p["status"].get("phase") == "Pending"]

        pod = until(f"a pod of {app}", found)[0]["metadata"]
        status = {"status": {"phase": "Failed", "reason": reason, "message": "low"}}
        path = f"{pods}/{pod['name']}/status"
        answer = self.wire.ask(Request("PATCH", path, status, MERGE, stored=True))
        assert answer.status == 200, answer.message
        key = f"{app}-{reason}".upper()
        self._facts[f"NAME-OF-{key}-IN-{namespace}"] = pod["name"]
        self._facts[f"UID-OF-{key}-IN-{namespace}"] = pod["uid"]

    def learn(self) -> None:
        """Read what the attackers know of the objects."""
        wire = self.wire
        for namespace in (SHOP, ELSEWHERE):
            for app, reason in (("old", "Evicted"), ("old", "Error"), ("work", "Evicted")):
                self._end(namespace, app, reason)
            for name in ("db-0", "lone"):
                meta = wire.want("GET", place("v1", "pods", namespace, name))["metadata"]
                self._facts[f"UID-OF-{name.upper()}-IN-{namespace}"] = meta["uid"]
            for name in ("failed", "held", "late", "work"):
                meta = wire.want("GET", place("batch/v1", "jobs", namespace, name))["metadata"]
                self._facts[f"UID-OF-JOB-{name.upper()}-IN-{namespace}"] = meta["uid"]
            for kind in ("deployments", "statefulsets"):
                path = place("apps/v1", kind, namespace, "small")
                version = until(f"{path} to settle", lambda path=path: self._settled(path))
                self._facts[f"VERSION-OF-{kind.upper()}-IN-{namespace}"] = version
            for name in (*MACHINES, NOBODYS):
                meta = wire.want("GET", place(VERSION, "machines", namespace, name))["metadata"]
                self._facts[f"UID-OF-MACHINE-{name.upper()}-IN-{namespace}"] = meta["uid"]
            pool = wire.want("GET", place(VERSION, "machinedeployments", namespace, "gpus"))
            version = pool["metadata"]["resourceVersion"]
            self._facts[f"VERSION-OF-POOL-IN-{namespace}"] = version
        node = wire.want("GET", place("v1", "nodes"))["items"][0]["metadata"]["name"]
        self._facts["NODE"] = place("v1", "nodes", name=node)

    def _settled(self, path: str) -> str | None:
        """Give the version of a workload that wants no pods, once its controller saw it."""
        found = self.wire.want("GET", path)
        seen = found.get("status", {}).get("observedGeneration", 0)
        conditions = found.get("status", {}).get("conditions") or found["kind"] == "StatefulSet"
        settled = seen == found["metadata"]["generation"] and conditions
        return found["metadata"]["resourceVersion"] if settled else None


@contextmanager
def standing(cluster: Target) -> Iterator[Fort]:
    """Install everything; take it away at the end."""
    _clear(cluster)
    try:
        fort = Fort(cluster)
        _build(fort)
        yield fort
    finally:
        _clear(cluster, wait=False)


def _build(fort: Fort) -> None:
    cluster, wire = fort.cluster, fort.wire
    shipped = rendered(cluster)
    policies = [one for one in shipped if one["kind"].startswith("ValidatingAdmissionPolicy")]
    fort.policies = {
        one["metadata"]["name"].removeprefix(f"{RELEASE}-"): one
        for one in policies
        if one["kind"] == "ValidatingAdmissionPolicy"
    }
    cluster.apply(*namespaces(), *all_rights(), *anchor())
    cluster.apply(*(one for one in shipped if one not in policies), *older())
    cluster.apply(*volumes(SHOP), *volumes(ELSEWHERE)[1:])
    shops = (*targets(SHOP), *targets(ELSEWHERE), *pools(SHOP), *pools(ELSEWHERE))
    cluster.apply(*shops, machine_set(SHOP), machine_set(ELSEWHERE))
    for namespace in (SHOP, ELSEWHERE):
        owner = wire.want("GET", place(VERSION, "machinesets", namespace, "attacked"))
        cluster.apply(*machines(namespace, owner["metadata"]["uid"]))
    cluster.apply(*nodes(), *policies)
    for role in ("launcher", "gateway", "agents"):
        fort.tokens[role] = token(wire, SYSTEM, f"tiphys-{role}", None)
    _await_policies(fort)
    launcher, controller = fort.who("launcher", wide=False), fort.who("controller", wide=True)
    for run in (RUN, OTHER_RUN):
        wire.want("POST", WORKFLOWS, workflow(run), launcher)
    running = {"status": {"phase": "Running", "startedAt": "2026-01-01T00:00:00Z"}}
    told = wire.ask(Request("PATCH", f"{WORKFLOWS}/{RUN}", running, MERGE, stored=True), controller)
    assert told.status == 200, told.message
    for name, number in ACTORS.items():
        made = run_pod(name, number)
        pod = wire.want("POST", place("v1", "pods", ACTIONS), made, controller)
        fort.tokens[f"act-{name}"] = token(wire, ACTIONS, f"act-{name}", pod["metadata"])
        fort.tokens[f"act-{name}, unbound"] = token(wire, ACTIONS, f"act-{name}", None)
    for namespace in (SHOP, ELSEWHERE):
        pod = Request("GET", place("v1", "pods", namespace, "db-0"))
        until(
            f"{pod.path} on a node",
            lambda pod=pod: wire.ask(pod).body.get("spec", {}).get("nodeName"),
        )
    for namespace in (SHOP, ELSEWHERE):
        _run_report(wire, namespace)
        _bind(wire, namespace)
    fort.learn()


def _bind(wire: Wire, namespace: str) -> None:
    """Wait until the claims are bound; one of them asks for more, which nobody gives it."""

    def bound(path: str) -> bool:
        return wire.want("GET", path).get("status", {}).get("phase") == "Bound"

    for name in CLAIMS:
        path = place("v1", "persistentvolumeclaims", namespace, name)
        until(f"{path} to be bound", lambda path=path: bound(path))
    growing = place("v1", "persistentvolumeclaims", namespace, "growing")
    body = {"spec": {"resources": {"requests": {"storage": "4Gi"}}}}
    answer = wire.ask(Request("PATCH", growing, body, MERGE, stored=True))
    assert answer.status == 200, answer.message


def _run_report(wire: Wire, namespace: str) -> None:
    """Make two runs of the CronJob: one that fails at once, one that somebody has suspended."""
    jobs = place("batch/v1", "jobs", namespace)
    made = wire.want("GET", place("batch/v1", "cronjobs", namespace, "report"))["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True}
    owner |= {key: made[key] for key in ("name", "uid")}
    for name, spec in (("failed", {"activeDeadlineSeconds": 1}), ("held", {"suspend": True})):
        one = job(namespace, name, **spec)
        one["metadata"]["ownerReferences"] = [owner]
        wire.want("POST", jobs, one)

    def failed(name: str) -> bool:
        conditions = wire.want("GET", f"{jobs}/{name}").get("status", {}).get("conditions") or []
        return any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)

    for name in ("failed", "late"):
        until(f"Job {name} to fail", lambda name=name: failed(name))


def rendered(cluster: Target) -> list[Json]:
    """Give what the chart installs beside its own pods."""
    values = {
        "actionsNamespace": ACTIONS,
        "stopNamespace": STOP,
        "createOwnNamespaces": False,
        "argo": {"namespace": ARGO, "serviceAccount": "argo"},
        "namespaces": [SHOP],
        "nodeActions": {"enabled": True},
        "boundary": {"publisherUsers": [PUBLISHER]},
        "images": {"executor": EXECUTOR, "step": STEP},
        "steps": {"priorityClass": "", "createPriorityClass": False},
        "signing": {"publicKey": "ab" * 32, "existingSecret": "none"},
        "database": {"existingSecret": "none"},
    }
    chart = str(CHECKOUT / "helm" / "tiphys")
    done = subprocess.run(
        [cluster.bin["helm"], "template", RELEASE, chart, "-n", SYSTEM, "-f", "-"],
        input=json.dumps(values), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = [
        one
        for one in yaml.safe_load_all(done.stdout)
        if one
        and one["kind"] in KINDS
        and "helm.sh/hook" not in one["metadata"].get("annotations", {})
        and (one["kind"] != "ConfigMap" or one["metadata"]["name"] == "tiphys-catalogue")
    ]
    # The same Roles where nobody opted in: RBAC there is too wide by mistake.
    mistaken = [
        json.loads(json.dumps(one).replace(SHOP, ELSEWHERE))
        for one in ours
        if one["metadata"].get("namespace") == SHOP
    ]
    return [*ours, *mistaken]


def _await_policies(fort: Fort) -> None:
    """Wait until each policy that everything else here needs refuses what it alone refuses."""
    intruder = fort.who("administrator", wide=True)
    pod = Request("POST", place("v1", "pods", ACTIONS), step_pod("restart-pod", 1))
    some_map = Request("POST", CONFIG_MAPS, config_map(SHOP, "x"))
    agents = fort.who("agents", wide=True)
    probes = [
        (Request("POST", WORKFLOWS, workflow()), intruder, "workflows-create"),
        (pod, intruder, "pods"),
        (some_map, agents, "service"),
        (some_map, fort.who("act-unknown", wide=True), "act"),
        *((some_map, fort.who(f"act-{name}", wide=True), f"act-{name}") for name in ACTORS),
    ]
    last = ""

    def refused(request: Request, who: Who, policy: str) -> bool:
        nonlocal last
        answer = fort.wire.ask(request, who)
        last = f"{answer.status} {answer.message}"
        return answer.wall.startswith(f"{policy}: ")

    for request, who, policy in probes:
        until(f"policy {policy}", lambda r=request, w=who, p=policy: refused(r, w, p))

    def started() -> bool:
        nonlocal last
        plan = Request("POST", WORKFLOWS, workflow())
        answer = fort.wire.ask(plan, fort.who("launcher", wide=False))
        last = f"{answer.status} {answer.message}"
        return answer.status == 201

    try:
        until("the launcher's plan", started, 20)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error


def token(wire: Wire, namespace: str, name: str, pod: Json | None) -> str:
    """Ask for a ServiceAccount's token, bound to a pod where there is one."""
    spec: Json = {"expirationSeconds": 3600}
    if pod:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
        spec["boundObjectRef"] = bound
    path = place("v1", "serviceaccounts", namespace, name) + "/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str(wire.want("POST", path, body)["status"]["token"])


def _clear(cluster: Target, *, wait: bool = True) -> None:
    for kind in (
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicies",
        "clusterrolebindings",
        "clusterroles",
    ):
        names = [
            name
            for name in cluster.kubectl("get", kind, "-o", "name").split()
            if name.partition("/")[2].startswith(f"{RELEASE}-") and not name.endswith(ANCHOR)
        ]
        if names:
            cluster.kubectl("delete", "--ignore-not-found", *names)
    cluster.kubectl("delete", "nodes", "-l", "tiphys.io/attack=node", "--ignore-not-found")
    for kind in ("rolebindings", "roles"):
        named = cluster.kubectl("get", kind, "-n", "default", "-o", "name").split()
        ours = [name for name in named if name.partition("/")[2].startswith(f"{RELEASE}-")]
        if ours:
            cluster.kubectl("delete", "-n", "default", "--ignore-not-found", *ours)
    waiting = f"--wait={str(wait).lower()}"
    cluster.kubectl("delete", "namespace", "--ignore-not-found", waiting, *NAMESPACES, seconds=180)
    for kind in ("persistentvolumes", "storageclasses"):
        names = [
            name
            for name in cluster.kubectl("get", kind, "-o", "name").split()
            if name.partition("/")[2].startswith(f"{RELEASE}-")
        ]
        if names:
            cluster.kubectl("delete", "--ignore-not-found", waiting, *names)

"""What the API server lets into the namespace where runs act, beside Workflows and templates.

Invariants: a pod there is one that Argo's controller made of a run, from our images, without
privilege, and it stays as it was made; a pod reports its own node of its own Workflow; nothing else
of Argo exists there; accounts, rights and tokens there are the publishers' and the kubelets'.
"""

from collections.abc import Sequence

from tiphys.workflow_templates import apart
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.boundary_policy import (
    COLLECTORS,
    WRITES,
    BoundarySettings,
    Match,
    Policy,
    Rule,
    publisher,
    texts,
    user_is,
)
from tiphys.workflow_templates.boundary_workflows import ARGO

_POD = (
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsPolicy",
    "enableServiceLinks", "imagePullSecrets", "initContainers", "nodeSelector", "preemptionPolicy",
    "priority", "priorityClassName", "restartPolicy", "schedulerName", "securityContext",
    "serviceAccount", "serviceAccountName", "terminationGracePeriodSeconds", "tolerations",
    "volumes",
)  # fmt: skip
POD_NAME = "authentication.kubernetes.io/pod-name"
"""Who a token is bound to: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/"""
POD = (
    "pod",
    f"""has(request.userInfo.extra) && '{POD_NAME}' in request.userInfo.extra
        ? request.userInfo.extra['{POD_NAME}'][0] : ''""",
)


def pods(settings: BoundarySettings, actions: Sequence[Action]) -> Policy:
    """Judge the creation and every change of a pod among the runs."""
    changers = texts((settings.controller, *COLLECTORS))
    return Policy(
        name="pods",
        matches=(
            Match("", ("pods",), ("CREATE", "UPDATE")),
            Match("", ("pods/ephemeralcontainers", "pods/resize"), ("UPDATE",)),
        ),
        namespace=settings.actions_namespace,
        variables=(
            ("made", "request.operation == 'CREATE'"),
            (
                "each",
                """object.spec.containers
                   + (has(object.spec.initContainers) ? object.spec.initContainers : [])""",
            ),
        ),
        rules=(
            Rule(
                f"!variables.made || {user_is(settings.controller)}",
                "only Argo's controller may create a pod here",
            ),
            Rule(
                f"variables.made || request.userInfo.username in {changers}",
                "only Argo's controller may change a pod here",
            ),
            Rule(
                "variables.made || object.spec == oldObject.spec",
                "a pod stays as it was made: no other image, no ephemeral container",
            ),
            *_shaped(settings),
            *_UNPRIVILEGED,
            apart.pod_rule(actions),
        ),
    )


def _shaped(settings: BoundarySettings) -> tuple[Rule, ...]:
    return (
        Rule(
            "!variables.made || object.metadata.name.matches('^tiphys-[a-z2-7]{40}-.+$')",
            "a pod is named after its Workflow",
        ),
        Rule(
            """!variables.made || (has(object.spec.serviceAccountName)
               && object.spec.serviceAccountName.startsWith('act-'))""",
            "a pod runs as an action's account",
        ),
        Rule(
            f"!variables.made || variables.each.all(c, c.image in {texts(settings.images)})",
            "only the step's image and Argo's executor run here",
        ),
        Rule(
            f"!variables.made || object.spec.all(k, k in {texts(_POD)})",
            "the pod has a field that our pods do not have, such as a host's namespace",
        ),
        Rule(
            """!variables.made || !has(object.spec.volumes) || object.spec.volumes.all(v,
               v.all(k, k in ['name', 'emptyDir'])
               || (v.name.startsWith('kube-api-access-') && v.all(k, k in ['name', 'projected'])
               && v.projected.sources.all(s,
               s.all(k, k in ['serviceAccountToken', 'configMap', 'downwardAPI'])
               && (!has(s.configMap) || s.configMap.name == 'kube-root-ca.crt')
               && (!has(s.serviceAccountToken) || !has(s.serviceAccountToken.audience)))))""",
            "the only volumes are empty folders and the pod's own token",
        ),
    )


_UNPRIVILEGED = (
    Rule(
        """!variables.made || variables.each.all(c, has(c.securityContext)
               && has(c.securityContext.allowPrivilegeEscalation)
               && !c.securityContext.allowPrivilegeEscalation
               && (!has(c.securityContext.privileged) || !c.securityContext.privileged)
               && (!has(c.securityContext.procMount)
               || c.securityContext.procMount == 'Default')
               && has(c.securityContext.capabilities)
               && !has(c.securityContext.capabilities.add)
               && has(c.securityContext.capabilities.drop)
               && c.securityContext.capabilities.drop.exists(d, d == 'ALL'))""",
        "no container has a privilege",
    ),
    Rule(
        """!variables.made || variables.each.all(c,
               (has(c.securityContext) && has(c.securityContext.runAsNonRoot)
               ? c.securityContext.runAsNonRoot : has(object.spec.securityContext)
               && has(object.spec.securityContext.runAsNonRoot)
               && object.spec.securityContext.runAsNonRoot)
               && !(has(c.securityContext) && has(c.securityContext.runAsUser)
               && c.securityContext.runAsUser == 0))""",
        "no container runs as root",
    ),
    Rule(
        """!variables.made || variables.each.all(c, (!has(c.env) || c.env.all(e,
               !has(e.valueFrom) || e.valueFrom.all(k, k == 'fieldRef'))) && !has(c.envFrom)
               && !has(c.lifecycle) && !has(c.volumeDevices)
               && (!has(c.ports) || c.ports.all(p, !has(p.hostPort) || p.hostPort == 0)))""",
        "no container reads a Secret, opens a host's port or runs at its end",
    ),
)


def results(settings: BoundarySettings) -> Policy:
    """Bind a task result to the pod that reports it: a forged one keeps a Workflow from ending."""
    label = "workflows.argoproj.io/workflow"
    return Policy(
        name="results",
        matches=(
            Match(ARGO, ("workflowtaskresults", "workflowtaskresults/*"), ("CREATE", "UPDATE")),
        ),
        namespace=settings.actions_namespace,
        conditions=(("not-the-end", f"!(request.userInfo.username in {texts(COLLECTORS)})"),),
        variables=(
            POD,
            (
                "workflow",
                f"""has(object.metadata.labels) && '{label}' in object.metadata.labels
                    ? object.metadata.labels['{label}'] : '?'""",
            ),
            ("parts", "object.metadata.name.split('-')"),
        ),
        rules=(
            Rule(
                """variables.pod.startsWith(variables.workflow + '-')
                   && object.metadata.name.startsWith(variables.workflow + '-')""",
                "a pod may report of its own Workflow only",
            ),
            Rule(
                "variables.pod.endsWith('-' + variables.parts[size(variables.parts) - 1])",
                "a pod may report its own node only",
            ),
            Rule(
                f"""request.operation == 'CREATE' || (has(oldObject.metadata.labels)
                    && '{label}' in oldObject.metadata.labels
                    && oldObject.metadata.labels['{label}'] == variables.workflow)""",
                "a result stays its Workflow's",
            ),
            Rule(
                """!has(object.metadata.finalizers)""",
                "a result has no finalizers",
            ),
        ),
    )


def other_kinds(settings: BoundarySettings) -> Policy:
    """Refuse whatever else Argo knows: schedules, event bindings, agents, artifact collectors."""
    ours = ("workflows", "workflowtemplates", "workflowtaskresults")
    return Policy(
        name="other-kinds",
        matches=(Match(ARGO, ("*/*",), ("CREATE", "UPDATE"), scope="Namespaced"),),
        excludes=tuple(Match(ARGO, (kind, f"{kind}/*"), ("*",)) for kind in ours),
        namespace=settings.actions_namespace,
        rules=(
            Rule(
                f"request.userInfo.username in {texts(COLLECTORS)}",
                "of Argo's kinds only Workflows of the catalogue exist here",
            ),
        ),
    )


def surroundings(settings: BoundarySettings) -> Policy:
    """Keep accounts, rights, Secrets, settings and tokens to the publishers."""
    system = texts(
        (
            *COLLECTORS,
            "system:kube-controller-manager",
            "system:serviceaccount:kube-system:legacy-service-account-token-cleaner",
            "system:serviceaccount:kube-system:root-ca-cert-publisher",
            "system:serviceaccount:kube-system:service-account-controller",
            "system:serviceaccount:kube-system:tokens-controller",
        )
    )
    return Policy(
        name="surroundings",
        matches=(
            Match("", ("configmaps", "secrets", "serviceaccounts"), WRITES),
            Match("", ("serviceaccounts/token",), ("CREATE",)),
            Match("rbac.authorization.k8s.io", ("roles", "rolebindings"), WRITES),
        ),
        namespace=settings.actions_namespace,
        variables=(publisher(settings),),
        rules=(
            Rule(
                f"""variables.publisher || request.userInfo.username in {system}
                    || request.resource.resource == 'serviceaccounts' && has(request.subResource)
                    && request.subResource == 'token'
                    && request.userInfo.username.startsWith('system:node:')""",
                "accounts, rights, Secrets and settings here are the publishers'",
            ),
        ),
    )

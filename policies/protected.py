"""What is never touched: namespaces and nodes that did not opt in, and everything of our own."""

from fnmatch import fnmatchcase
from typing import ClassVar

from pydantic.dataclasses import dataclass

from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, Verdict


@dataclass(frozen=True, config=SETTINGS)
class OptedIn(Rule):
    """The target's namespace, or a cluster-scoped target itself, bears a label."""

    name: ClassVar[RuleName] = RuleName.OPTED_IN

    label: str = "tiphys.io/heal"
    """The label's key."""
    value: str = "enabled"
    """The only value that opts in."""

    def judge(self, request: Request) -> Verdict:
        """Deny without the label."""
        target = request.proposal.target
        labels = request.target.namespace_labels if target.namespace else request.target.labels
        if labels.get(self.label) == self.value:
            return ALLOWED
        what = f"namespace {target.namespace}" if target.namespace else str(target)
        return Denied(reason=f"{what} did not opt in with the label {self.label}={self.value}")


@dataclass(frozen=True, config=SETTINGS)
class ProtectedNamespaces(Rule):
    """Namespaces that are left alone even when they opt in."""

    name: ClassVar[RuleName] = RuleName.PROTECTED_NAMESPACES

    patterns: tuple[str, ...] = (
        "kube-*",
        "openshift-*",
        "tiphys",
        "tiphys-*",
        "argo",
        "argo-*",
        "argocd",
        "argocd-*",
        "flux-system",
        "cert-manager",
        "gatekeeper-system",
        "istio-system",
    )
    """Names, `*` standing for anything."""

    def judge(self, request: Request) -> Verdict:
        """Deny where a pattern fits the target's namespace, or that of what changes with it."""
        changes = request.proposal.changes
        places = {request.proposal.target.namespace, *(c.of.namespace for c in changes if c.of)}
        for namespace in sorted(places - {""}):
            for pattern in self.patterns:
                if fnmatchcase(namespace, pattern):
                    return Denied(reason=f"namespace {namespace} is protected by {pattern}")
        return ALLOWED


@dataclass(frozen=True, config=SETTINGS)
class ManagedCluster(Rule):
    """The target is in the cluster that this installation manages."""

    name: ClassVar[RuleName] = RuleName.MANAGED_CLUSTER

    def judge(self, request: Request) -> Verdict:
        """Deny in any other cluster."""
        if request.target.managed_cluster:
            return ALLOWED
        cluster = request.proposal.target.cluster
        return Denied(reason=f"cluster {cluster} is not managed by this installation")


@dataclass(frozen=True, config=SETTINGS)
class HandsOff(Rule):
    """Nobody annotated the target or an owner of it to be left alone."""

    name: ClassVar[RuleName] = RuleName.HANDS_OFF

    annotation: str = "tiphys.io/hands-off"
    """Its presence counts, whatever its value, which is shown as the reason."""

    def judge(self, request: Request) -> Verdict:
        """Deny where the annotation is."""
        why = request.target.annotations.get(self.annotation)
        if why is None:
            return ALLOWED
        return Denied(reason=f"{request.proposal.target} is annotated {self.annotation}: {why!r}")


@dataclass(frozen=True, config=SETTINGS)
class OwnParts(Rule):
    """Tiphys does not operate on itself."""

    name: ClassVar[RuleName] = RuleName.OWN_PARTS

    label: str = "app.kubernetes.io/part-of"
    """The label's key."""
    value: str = "tiphys"
    """The value that marks a part of this installation."""

    def judge(self, request: Request) -> Verdict:
        """Deny for a target that is a part of this installation."""
        if request.target.labels.get(self.label) != self.value:
            return ALLOWED
        return Denied(reason=f"{request.proposal.target} is a part of Tiphys itself")


@dataclass(frozen=True, config=SETTINGS)
class OwnAlerts(Rule):
    """Alerts about Tiphys are for people."""

    name: ClassVar[RuleName] = RuleName.OWN_ALERTS

    prefix: str = "Tiphys"
    """Alerts whose name begins so."""

    def judge(self, request: Request) -> Verdict:
        """Deny where any of the incident's alerts is our own."""
        own = [name for name in request.alert.names if name.startswith(self.prefix)]
        return Denied(reason=f"{own[0]} is an alert about Tiphys itself") if own else ALLOWED

"""expand-volume: give a claim more storage, within bounds; nothing makes it small again."""

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import Field

from tiphys.policies.model import Change, Object, Risk
from tiphys.workflow_templates import claim_guards, claims
from tiphys.workflow_templates.action import (
    Action,
    Deadlines,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Right,
    Run,
    Scope,
)
from tiphys.workflow_templates.claim_guards import FACTOR, MOST_GIB
from tiphys.workflow_templates.claim_patch import ClaimPatch
from tiphys.workflow_templates.cluster import Gone
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.quantities import MIB, amount, mebibytes, told

_SETS, _PODS = ("apps/v1", "StatefulSet"), ("v1", "Pod")
LEAST = 110
"""Percent: less is not worth what cannot be taken back."""


class ExpandVolumeParameters(Parameters):
    """How much larger, and never larger than what."""

    percent: int = Field(ge=LEAST, le=100 * FACTOR, strict=True)
    """The new size in percent of the present one."""
    ceiling_gib: int = Field(ge=1, le=MOST_GIB, strict=True)
    """GiB that it never exceeds, whatever the percent."""


class ExpandVolume(Action):
    """Changes spec.resources.requests.storage of one claim, and nothing of who uses it."""

    name = "expand-volume"
    summary = "Give a PersistentVolumeClaim more storage, to at most twice its size."
    kinds = (claims.CLAIM,)
    parameters = ExpandVolumeParameters
    reads = (
        Related(*claims.STORAGE_CLASS, scope=Scope.CLUSTER),
        Related("v1", "ResourceQuota"),
        Related("v1", "LimitRange"),
        Related(*_PODS),
        Related(*_SETS),
    )
    rights = (
        Right("", "persistentvolumeclaims", ("get", "patch")),
        Right("", "pods", ("list",)),
        Right("", "resourcequotas", ("list",)),
        Right("", "limitranges", ("list",)),
        Right("apps", "statefulsets", ("list",)),
        Right("storage.k8s.io", "storageclasses", ("get",), scope=Scope.CLUSTER),
    )
    terms = claim_guards.TERMS
    guards = claim_guards.GUARDS
    reversible = False
    always_ask = "a volume that has grown is never made small again, and costs what it costs"
    undo = (
        "It cannot be undone: Kubernetes makes no volume smaller. Where it did not help a human "
        "is paged; a claim whose expansion hangs is frozen."
    )
    deadlines = Deadlines(verify=600, rollback=120)

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the change of the request; raises `NotApplicableError`."""
        wanted = cast("ExpandVolumeParameters", parameters)
        users = claims.mounted_by(target, related.get("Pod", ()))
        reasons = (
            claims.obstacle(target),
            claims.expandable(target, related.get("StorageClass", ())),
            None if users else "no running pod mounts it, and only what is mounted is grown",
        )
        if why := next(filter(None, reasons), None):
            raise NotApplicableError(why)
        if owner := claims.operator_of(users, related.get("StatefulSet", ())):
            raise NotApplicableError(f"{owner} owns what mounts it: its size is set there")
        intended = _raised(target, wanted)
        if why := claims.refusal(target, amount(intended), related):
            raise NotApplicableError(why)
        present = at(target, claims.REQUEST)
        return (Change(path=claims.REQUEST, present=present, intended=intended),)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Medium: nothing that runs is touched, and nothing takes it back."""
        del target, parameters
        return Risk.MEDIUM

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say how much larger it gets, for good, and who will not know."""
        wanted = cast("ExpandVolumeParameters", parameters)
        place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
        before = claims.size(target)
        after = min(before * wanted.percent / 100, wanted.ceiling_gib * 1024 * MIB)
        said = (
            f"Claim {place} of StorageClass {claims.class_of(target) or '(none)'} gets "
            f"{told(after)} instead of {told(before)}, for good: it is paid for from then on. No "
            "pod is restarted."
        )
        if not claims.may_be_of_a_template(target):
            return said
        return (
            f"{said} A StatefulSet that made the claim will not know: its volumeClaimTemplates "
            f"keep the earlier size, so new replicas begin with that, and its other claims stay."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the same would be planned now."""
        return self._patch(run).precheck()

    def act(self, run: Run) -> Report:
        """Ask for more in one fenced patch, with the mark."""
        return self._patch(run).act()

    def verify(self, run: Run) -> Report:
        """See the storage there, the file system grown and the alert over."""
        return self._patch(run).verify()

    def rollback(self, run: Run) -> Report:
        """Say how the claim stands: what has begun to grow is not put back."""
        return self._patch(run).rollback()

    def _patch(self, run: Run) -> ClaimPatch:
        wanted = ExpandVolumeParameters.model_validate(run.plan.parameters)

        def plan_on(claim: Object) -> Sequence[Change]:
            place = run.plan.target.namespace
            related: dict[str, Sequence[Object]] = {
                one.kind: run.cluster.list(one.api_version, one.kind, place)
                for one in self.reads
                if one.scope is Scope.NAMESPACE
            }
            related["StorageClass"] = _class_of(run, claim)
            return self.changes(claim, related, wanted)

        return ClaimPatch(run, self.deadlines, plan_on)


def _class_of(run: Run, claim: Object) -> Sequence[Object]:
    name = claims.class_of(claim)
    try:
        return [run.cluster.get(*claims.STORAGE_CLASS, "", name)] if name else []
    except Gone:
        return []


def _raised(claim: Object, wanted: ExpandVolumeParameters) -> str:
    """Give the new request as the API server would write it, or raise `NotApplicableError`."""
    before, ceiling = claims.size(claim), wanted.ceiling_gib * 1024 * MIB
    after = min(before * wanted.percent / 100, ceiling)
    if after * 100 < before * LEAST:
        raise NotApplicableError(
            f"it has {told(before)}, and the ceiling of {wanted.ceiling_gib} GiB leaves no room"
        )
    if after // MIB * MIB <= before:
        raise NotApplicableError(f"{told(before)} are too little to grow by whole MiB")
    return mebibytes(int(after // MIB))

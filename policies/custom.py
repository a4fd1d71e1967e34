"""Rules that a team writes: a CEL expression must hold, or its message denies or asks.

The shape is that of a Kubernetes ValidatingAdmissionPolicy's `validations`. An expression that
fails, whatever its effect, denies.
"""

from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import ClassVar, Final

from tiphys.policies.expressions import Expression, Scope
from tiphys.policies.model import Json
from tiphys.policies.rule import ALLOWED, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, NeedsApproval, Verdict


class Effect(StrEnum):
    """What happens when the expression does not hold."""

    DENY = "deny"
    ASK = "ask"


REQUEST_PATHS: Final = (
    "action.name",
    "action.version",
    "action.risk",
    "action.reversible",
    "action.confidence",
    "action.reasoner",
    "parameters.*",
    "alert.names",
    "target.cluster",
    "target.kind",
    "target.namespace",
    "target.name",
    "target.labels.*",
    "target.annotations.*",
    "target.namespace_labels.*",
    "target.owners",
    "target.gpu_hours_at_stake",
    "history.open_runs_in_cluster",
    "history.recent_launches_in_namespace",
    "evidence",
    "now.year",
    "now.month",
    "now.day",
    "now.weekday",
    "now.hour",
    "now.minute",
)
"""What an expression may name; times are UTC, `now.weekday` is 1 (Monday) to 7."""


@dataclass(frozen=True)
class CustomRule(Rule):
    """One of the policy's own rules."""

    name: ClassVar[RuleName] = RuleName.CUSTOM

    called: str
    expression: Expression
    message: str
    effect: Effect

    @property
    def title(self) -> str:
        """`custom/` and the name the policy gave."""
        return f"{self.name}/{self.called}"

    def judge(self, request: Request) -> Verdict:
        """Allow if the expression holds."""
        if self.expression.holds(_scope_of(request)):
            return ALLOWED
        if self.effect is Effect.ASK:
            return NeedsApproval(reason=self.message)
        return Denied(reason=self.message)


def _scope_of(request: Request) -> Scope:
    """Make the facts ready once for all expressions: that is most of their cost."""
    kept = request.memo.get("scope")
    scope = kept if isinstance(kept, Scope) else Scope(facts_of(request))
    request.memo["scope"] = scope
    return scope


def facts_of(request: Request) -> dict[str, Json]:
    """Give the request as the expressions see it; raises `FactsMissingError`."""
    proposal, target = request.proposal, request.target
    now = request.now.astimezone(UTC)
    return {
        "action": {
            "name": proposal.action,
            "version": proposal.version,
            "risk": proposal.risk.value,
            "reversible": proposal.reversible,
            "confidence": proposal.confidence,
            "reasoner": proposal.decided_by.reasoner,
        },
        "parameters": proposal.parameters,
        "alert": {"names": list(request.alert.names)},
        "target": {
            **proposal.target.model_dump(include={"cluster", "kind", "namespace", "name"}),
            "labels": dict(target.labels),
            "annotations": dict(target.annotations),
            "namespace_labels": dict(target.namespace_labels),
            "owners": [owner.model_dump(mode="json") for owner in target.owners],
            "gpu_hours_at_stake": target.gpu_hours_at_stake,
        },
        "history": {
            "open_runs_in_cluster": request.history.open_runs_in_cluster,
            "recent_launches_in_namespace": request.history.recent_launches_in_namespace,
        },
        "evidence": [fact.model_dump(mode="json") for fact in request.facts.evidence],
        "now": {
            "year": now.year,
            "month": now.month,
            "day": now.day,
            "weekday": now.isoweekday(),
            "hour": now.hour,
            "minute": now.minute,
        },
    }

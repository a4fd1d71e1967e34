"""The request as expressions see it: every fact that a policy may name, and what it holds.

Invariant: what could not be read is not there, so that an expression which names it fails, and
denies; nothing is made up.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from tiphys.policies.expressions import Scope
from tiphys.policies.model import AlertFacts, Change, Json, Severity
from tiphys.policies.rule import Request

REQUEST: Final[Mapping[str, str]] = {
    "alert.names": "names of the incident's alerts that fire now, as a list",
    "alert.severity": "the gravest among them: critical, warning or info; empty without an alert",
    "alert.labels.*": "labels that all of them have in common",
    "alerts": "each of them: `name`, `severity`, `labels`",
    "incident.id": "such as inc-7kq2x9dm",
    "incident.severity": "critical, warning or info",
    "incident.subject": "what the alerts speak of, such as `deployment shop/cart`",
    "incident.attempt": "which attempt at it this is, from 1",
    "incident.opened_minutes_ago": "whole minutes",
    "action.name": "as the catalogue spells it",
    "action.version": "a whole number",
    "action.risk": "low, medium or high",
    "action.reversible": "whether it can be undone",
    "action.always_asks": "whether its contract wants a person each time",
    "action.undoes": "whether a person has an earlier run undone by it",
    "action.confidence": "of whoever decided, 0 to 1; compare it, do not calculate with it",
    "action.reasoner": "playbooks, model or human",
    "parameters.*": "the action's own, as docs/actions.md lists them",
    "changes": "each field that changes: `object`, `path`, `present`, `intended`",
    "target.cluster": "the cluster's name",
    "target.api_version": "such as apps/v1",
    "target.kind": "such as Deployment",
    "target.namespace": "empty for a node and what else is in none",
    "target.name": "the object's name",
    "target.labels.*": "its labels",
    "target.annotations.*": "its own and its owners' under tiphys.io/",
    "target.namespace_labels.*": "the labels of its namespace",
    "target.owners": "its owner chain, nearest first: `kind`, `name`, `api_version`, `uid`",
    "target.gpu_hours_at_stake": "GPU hours that would be lost",
    "history.open_runs_on_target": "runs that are open on it",
    "history.open_runs_in_cluster": "runs that are open anywhere",
    "history.recent_launches_in_namespace": "launches within launch-rate's window",
    "evidence": "each piece of the incident's evidence: `id`, `source`, `ok`, `cited` by the "
    "proposal, `age_seconds`, `asked_at`",
    "now.date": "such as 2026-03-06; all of `now` is UTC",
    "now.year": "a whole number",
    "now.month": "1 to 12",
    "now.day": "1 to 31",
    "now.weekday": "1 (Monday) to 7",
    "now.hour": "0 to 23",
    "now.minute": "0 to 59",
}
"""Each path that an expression may name, and what it holds; `*` stands for any key below."""

REQUEST_PATHS: Final = tuple(REQUEST)

_GRAVEST_FIRST: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def scope_of(request: Request) -> Scope:
    """Make the facts ready once for all expressions: that is most of their cost."""
    kept = request.memo.get("scope")
    if isinstance(kept, Scope):
        return kept
    request.memo["scope"] = scope = Scope(facts_of(request))
    return scope


def facts_of(request: Request) -> dict[str, Json]:
    """Give the request as the expressions see it; raises `FactsMissingError`."""
    now = request.now.astimezone(UTC)
    known: dict[str, Json] = {
        "action": _action(request),
        "parameters": request.proposal.parameters,
        "changes": [_change(change, request) for change in request.proposal.changes],
        "target": _target(request),
        "history": {
            "open_runs_on_target": request.history.open_runs_on_target,
            "open_runs_in_cluster": request.history.open_runs_in_cluster,
            "recent_launches_in_namespace": request.history.recent_launches_in_namespace,
        },
        "evidence": _evidence(request, now),
        "now": _time(now),
        **_alerts(request.alert),
    }
    incident = request.facts.incident
    if incident is not None:
        known["incident"] = {
            **incident.model_dump(mode="json", exclude={"opened_at"}),
            "opened_minutes_ago": int((now - incident.opened_at).total_seconds() // 60),
        }
    return known


def _alerts(alert: AlertFacts) -> dict[str, Json]:
    names: list[Json] = list(alert.names)
    if alert.alerts is None:
        return {"alert": {"names": names}}
    grades = {one.severity for one in alert.alerts}
    labels = [set(one.labels.items()) for one in alert.alerts]
    shared = set.intersection(*labels) if labels else set[tuple[str, str]]()
    return {
        "alert": {
            "names": names,
            "severity": next((grade.value for grade in _GRAVEST_FIRST if grade in grades), ""),
            "labels": dict(sorted(shared)),
        },
        "alerts": [one.model_dump(mode="json") for one in alert.alerts],
    }


def _action(request: Request) -> Json:
    proposal = request.proposal
    return {
        "name": proposal.action,
        "version": proposal.version,
        "risk": proposal.risk.value,
        "reversible": proposal.reversible,
        "always_asks": bool(proposal.always_ask),
        "undoes": request.undo,
        "confidence": proposal.confidence,
        "reasoner": proposal.decided_by.reasoner,
    }


def _change(change: Change, request: Request) -> Json:
    return {
        "object": str(change.of or request.proposal.target),
        "path": change.path,
        "present": change.present,
        "intended": change.intended,
    }


def _target(request: Request) -> Json:
    named = {"cluster", "api_version", "kind", "namespace", "name"}
    target = request.target
    return {
        **request.proposal.target.model_dump(include=named),
        "labels": dict(target.labels),
        "annotations": dict(target.annotations),
        "namespace_labels": dict(target.namespace_labels),
        "owners": [owner.model_dump(mode="json") for owner in target.owners],
        "gpu_hours_at_stake": target.gpu_hours_at_stake,
    }


def _evidence(request: Request, now: datetime) -> Json:
    cited = set(request.proposal.evidence)
    return [
        {
            **fact.model_dump(mode="json"),
            "cited": fact.id in cited,
            "age_seconds": int((now - fact.asked_at).total_seconds()),
        }
        for fact in request.facts.evidence
    ]


def _time(now: datetime) -> Json:
    return {
        "date": now.date().isoformat(),
        "year": now.year,
        "month": now.month,
        "day": now.day,
        "weekday": now.isoweekday(),
        "hour": now.hour,
        "minute": now.minute,
    }

"""Audit records in words: one sentence each, for the terminal, the demo and chat."""

from typing import Any

from tiphys.service.records import AuditEvent

_SUBJECTS = ("pod", "deployment", "statefulset", "daemonset", "job_name", "node")
"""Labels that tell one alert of a name from another, the most exact first."""


def plain(value: object, limit: int = 400) -> str:
    """Give outside text as text: no control characters, bounded."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def sentence(record: dict[str, Any]) -> str:
    """Say what one audit record (as the API gives it) tells."""
    body: dict[str, Any] = record["body"] or {}
    match record["event"]:
        case AuditEvent.INCIDENT_OPENED:
            return f"{body['title']} → {record['incident_id']}"
        case AuditEvent.ALERT_OPENED:
            return f"{_alert(body)} fires too"
        case AuditEvent.ALERT_ENDED:
            return f"{_alert(body)} is over"
        case AuditEvent.DECIDED:
            return _decision(body["decision"])
        case AuditEvent.JUDGED:
            return _judgement(body["judgement"])
        case AuditEvent.PLANNED:
            return _plan(body)
        case AuditEvent.LAUNCH_INTENDED:
            until = str(body["not_after"])[11:19]
            return f"the intent is recorded: {body['workflow']}, to start until {until}"
        case AuditEvent.WORKFLOW_CREATED:
            how = "found, as created before" if body["adopted"] else "created"
            return f"{body['workflow']} {how} from {body['template']}"
        case AuditEvent.RUN_STEP:
            return _step(body["step"])
        case AuditEvent.RUN_ENDED:
            return f"{str(body['outcome']).replace('_', ' ')}: {body['why']}"
        case _:
            return _other(body)


def _other(body: dict[str, Any]) -> str:
    for key in ("reason", "summary", "why", "title"):
        if body.get(key):
            return str(body[key])
    return " ".join(f"{k}={v}" for k, v in body.items() if isinstance(v, str | int | bool))


def _decision(decision: dict[str, Any]) -> str:
    what = decision.get("action") or decision["answer"].replace("_", " ")
    return f"{what}: {decision['reason']}"


def _plan(body: dict[str, Any]) -> str:
    changes = body["plan"]["changes"]
    target = body["plan"].get("target") or {"kind": "the", "namespace": "", "name": "object"}
    said = [_change(change, change.get("of"), target) for change in changes[:3]]
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"{body['digest'][:12]}: {'; '.join(said)}{more}"


def _change(change: dict[str, Any], of: dict[str, Any] | None, target: dict[str, Any]) -> str:
    """Say one change; of the target's own fields, which the reader knows, the path alone."""
    thing = of or target
    name = f"{thing['kind']} {'/'.join(filter(None, (thing['namespace'], thing['name'])))}"
    if not change["path"] and change["intended"] is None:
        return f"{name} is deleted"
    place = f"{name} {change['path']}" if of else change["path"]
    return f"{place}: {plain(change['present'], 60)} → {plain(change['intended'], 60)}"


def _alert(body: dict[str, Any]) -> str:
    """Name an alert, and which of its series, where its labels say so."""
    labels: dict[str, str] = body.get("labels") or {}
    found = next((f"{k} {labels[k]}" for k in _SUBJECTS if labels.get(k)), "")
    return f"{body.get('alert')} on {found}" if found else str(body.get("alert"))


def _judgement(judgement: dict[str, Any]) -> str:
    against = [v for v in judgement["verdicts"] if v["verdict"]["verdict"] != "allowed"]
    if not against:
        return f"all {len(judgement['verdicts'])} rules allow it"
    return "; ".join(
        f"{v['rule']} {v['verdict']['verdict'].replace('_', ' ')}: {v['verdict']['reason']}"
        for v in against
    )


def _step(step: dict[str, Any]) -> str:
    said = str(step["result"] or step["phase"]).replace("_", " ")
    more = f"; {step['message']}" if step["message"] else ""
    return f"{step['step']}: {said}{more}"

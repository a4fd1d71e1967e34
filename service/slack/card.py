"""An incident's card for Slack: what is wrong, how we know, what would be done, who may say yes.

Pure: from the API's view of an incident to Block Kit. Invariants: nothing from outside is read as
markup (`escaping`, `blocks`); secrets are hidden as they are from models; a card shows the buttons
of its state and no others, each bound to the plan or the run that it speaks of.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Change, Evidence, Outcome, Risk
from tiphys.service.records import AuditEvent
from tiphys.service.slack import blocks
from tiphys.service.slack.blocks import Block
from tiphys.service.slack.escaping import link, name, shown, spoken
from tiphys.service.views import AttemptView, IncidentView

MAX_EVIDENCE: Final = 8
MAX_CHANGES: Final = 12
MAX_RULED_OUT: Final = 3


class Button(StrEnum):
    """The `action_id` of each button."""

    ACKNOWLEDGE = "tiphys_acknowledge"
    APPROVE = "tiphys_approve"
    BREAK_GLASS = "tiphys_break_glass"
    CHART = "tiphys_chart"
    DENY = "tiphys_deny"
    EXPLAIN = "tiphys_explain"
    UNDO = "tiphys_undo"


@dataclass(frozen=True)
class Card:
    """One message."""

    blocks: list[Block]
    text: str
    """What a notification and a screen reader say."""

    @property
    def fingerprint(self) -> str:
        """Tell whether two cards show the same."""
        whole = json.dumps([self.text, self.blocks], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()


def card(view: IncidentView) -> Card:
    """Draw an incident as it is now."""
    incident = view.incident
    last = view.attempts[-1] if view.attempts else None
    decision: dict[str, Any] = last.decision if last else {}
    where = f"{incident.target}" if incident.target else incident.subject
    made: list[Block] = [
        blocks.header(shown(f"{incident.severity.upper()}: {incident.title}", blocks.HEADER)),
        blocks.fields(
            {
                "Where": f"{shown(where, 900)} in cluster {shown(incident.cluster, 200)}",
                "State": _state(view),
                "Since": f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC",
                "Alerts": _alerts(view),
            }
        ),
        blocks.section(f"{shown(incident.reason, 2900)}"),
        blocks.section(_evidence(view, decision), _chart(view)),
    ]
    if decision.get("answer") == "proposal":
        made += _proposal(view, decision)
    elif decision:
        words = f"{decision['answer'].replace('_', ' ')}: {decision['reason']}"
        made.append(blocks.section(f"Agents\n{shown(words, 2800)}"))
    if decision.get("ruled_out"):
        made.append(blocks.section(_ruled_out(view, decision["ruled_out"])))
    if last and (words := _approval(view, last)):
        made.append(blocks.section(words))
    if last and (words := _broken(view, last)):
        made.append(blocks.section(words))
    if last and last.run:
        made.append(blocks.section(_run(last.run)))
    made.append(blocks.context(_footer(view, last)))
    if buttons := _buttons(view, last):
        made.append(blocks.actions(buttons))
    said = spoken(f"{incident.id} {incident.state}: {incident.title}. {incident.reason}", 600)
    return Card(made, said)


def rest_of(view: IncidentView) -> str:
    """Say where everything is that a card has no room for."""
    return f"tiphys incidents show {view.incident.id}"


def _state(view: IncidentView) -> str:
    incident = view.incident
    words = incident.state.replace("_", " ")
    if incident.acknowledged_by and incident.state == State.ACKNOWLEDGED:
        words += f", in the hands of {name(incident.acknowledged_by)}"
    if incident.outcome:
        words += f"; last run {incident.outcome.replace('_', ' ')}"
    if incident.deadline_at and incident.state == State.AWAITING_APPROVAL:
        words += f" until {incident.deadline_at:%H:%M:%S} UTC"
    return words


def _alerts(view: IncidentView) -> str:
    names = list(dict.fromkeys(alert.name for alert in view.alerts))
    if view.incident.wish and not names:
        return f"none; {name(view.incident.wish.by, 200)} asked for it"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown(one, 200) for one in names[:3]) + more


def _evidence(view: IncidentView, decision: dict[str, Any]) -> str:
    cited: set[str] = set(decision.get("evidence") or ())
    # What the decision names, then the newest.
    items = sorted(view.evidence, key=lambda item: item.asked_at, reverse=True)
    items.sort(key=lambda item: item.id not in cited)
    found = [_witness(item) for item in items]
    if not found:
        return "Evidence\nnone was gathered"
    kept, left = found[:MAX_EVIDENCE], len(found) - MAX_EVIDENCE
    if left > 0:
        kept.append(f"…and {left} more: {rest_of(view)}")
    return blocks.lines("Evidence", kept, more=rest_of(view))


def _witness(item: Evidence) -> str:
    said = shown(item.summary, 280)
    if not item.ok:
        said = f"no answer: {said}"
    return f"• {said} [{item.source}: {shown(item.question, 120)}; {shown(item.id, 40)}]"


def _chart(view: IncidentView) -> Block | None:
    """Give a button to the alert's graph, where it names one that may be opened."""
    found = (link(alert.generator_url) for alert in view.alerts)
    url = next((one for one in found if one), None)
    return blocks.link_button("Open the chart", Button.CHART, url) if url else None


def _proposal(view: IncidentView, decision: dict[str, Any]) -> list[Block]:
    target = decision["target"]
    place = "/".join(filter(None, (target["namespace"], target["name"])))
    head = f"{decision['action']}-v{decision['version']} on {target['kind']} {place}"
    by = decision["decided_by"]
    who = " ".join(filter(None, (by["reasoner"], by["playbook"] or by["model"])))
    parameters = json.dumps(decision["parameters"], ensure_ascii=False, sort_keys=True)
    made = [
        blocks.section(f"Proposed\n{shown(head, 600)}\n{shown(decision['reason'], 2000)}"),
        blocks.fields(
            {
                "Risk": shown(decision["risk"], 100),
                "Blast radius": shown(decision["blast_radius"], 900),
                "How it is undone": shown(decision["undo"], 900),
                "What could go wrong": shown(decision.get("risks") or "", 500),
                "Parameters": shown(parameters, 900) if decision["parameters"] else "none",
                "Decided by": shown(who, 300),
            }
        ),
    ]
    if decision["changes"]:
        made.append(blocks.section(_changes(view, decision["changes"])))
    return made


def _ruled_out(view: IncidentView, ruled: list[dict[str, Any]]) -> str:
    said = [
        f"• {shown(r['action'], 60)}: {shown(r['because'], 200)}" for r in ruled[:MAX_RULED_OUT]
    ]
    return blocks.lines("Ruled out", said, more=rest_of(view), limit=1000)


def _changes(view: IncidentView, changes: list[dict[str, Any]]) -> str:
    found = [_change(Change.model_validate(change)) for change in changes]
    kept, left = found[:MAX_CHANGES], len(found) - MAX_CHANGES
    if left > 0:
        kept.append(f"…and {left} more: {rest_of(view)}")
    return blocks.lines("Changes", kept, more=rest_of(view))


def _change(change: Change) -> str:
    if not change.path and change.intended is None:
        return f"• {shown(change.place, 200)}: is deleted"
    values = f"{shown(_said(change.present), 100)} → {shown(_said(change.intended), 100)}"
    return f"• {shown(change.place, 200)}: {values}"


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _approval(view: IncidentView, attempt: AttemptView) -> str:
    """Say why a person must agree, who may, and what stands against it."""
    judgement = attempt.judgement or {}
    found = [v for v in judgement.get("verdicts", ()) if v["verdict"]["verdict"] != "allowed"]
    if not found:
        return ""
    said = [
        f"• {v['verdict']['verdict'].replace('_', ' ')} by {shown(v['rule'], 100)}: "
        f"{shown(v['verdict']['reason'], 500)}"
        for v in found
    ]
    asks = [v["verdict"] for v in found if v["verdict"]["verdict"] == "needs_approval"]
    if asks and view.incident.state == State.AWAITING_APPROVAL:
        said.insert(0, _who(view, asks))
    return blocks.lines("Approval", said, more=rest_of(view))


def _who(view: IncidentView, asks: list[dict[str, Any]]) -> str:
    people = max(int(ask.get("people", 1)) for ask in asks)
    target = view.incident.target
    place = f"namespace {target.namespace}" if target and target.namespace else "the cluster"
    words = "one approver" if people == 1 else f"{people} different approvers"
    said = f"Who may approve: {words} of {shown(place, 300)}"
    named: list[tuple[str, ...]] = [tuple(ask.get("by", ())) for ask in asks]
    for by in dict.fromkeys(named):
        if by:
            said += f", one of them {' or '.join(name(one, 100) for one in by[:5])}"
            said += f" or {len(by) - 5} others" if len(by) > 5 else ""
    return said


def _broken(view: IncidentView, attempt: AttemptView) -> str:
    """Say who broke the glass for this plan, and why; it stays on the card."""
    found = [
        f"{name(record.actor, 100)} broke the glass and approved alone: "
        f"{shown(str(record.body.get('reason', '')), 1000)}. Somebody else reviews it."
        for record in view.timeline
        if record.event == AuditEvent.BREAK_GLASS
        and isinstance(record.body, dict)
        and record.body.get("digest") == attempt.plan_digest
    ]
    return found[-1] if found else ""


def _run(run: dict[str, Any]) -> str:
    ended = str(run["outcome"] or ("under way" if run["open"] else "never ran")).replace("_", " ")
    said = [
        f"• {shown(step['step'], 60)}: {shown(step['result'] or step['phase'], 60)}"
        + (f", {shown(step['message'], 300)}" if step["message"] else "")
        for step in run["steps"][-8:]
    ]
    return blocks.lines(f"Run {shown(run['workflow'], 100)}: {shown(ended, 60)}", said, more="")


def _footer(view: IncidentView, last: AttemptView | None) -> str:
    parts = [view.incident.id, f"attempt {view.incident.attempt}"]
    if last and last.plan_digest:
        parts.append(f"plan {last.plan_digest[:12]}")
    if last and last.judgement:
        parts.append(shown(str(last.judgement["policy"]).split("@")[0], 60))
    return " · ".join((*parts, rest_of(view)))


def _buttons(view: IncidentView, last: AttemptView | None) -> list[Block]:
    incident = view.incident
    made: list[Block] = []
    if incident.state == State.AWAITING_APPROVAL and last and last.plan_digest:
        value = f"{incident.id}:{last.plan_digest}"
        asking = _asking(last.decision)
        made += [
            blocks.button("Approve", Button.APPROVE, value, style="primary", confirm=asking),
            blocks.button("Deny", Button.DENY, value, style="danger"),
        ]
        if _glass_helps(view, last):
            made.append(blocks.button("Break the glass", Button.BREAK_GLASS, value))
    if incident.state == State.ESCALATED:
        made.append(blocks.button("I take it", Button.ACKNOWLEDGE, f"{incident.id}:"))
    if last and last.judgement:
        made.append(blocks.button("Explain", Button.EXPLAIN, f"{incident.id}:"))
    if last and (run := undoable(view, last)):
        made.append(blocks.button("Undo", Button.UNDO, f"{incident.id}:{run}"))
    return made


def _glass_helps(view: IncidentView, last: AttemptView) -> bool:
    """Whether somebody alone could approve only so: two people are asked for, or not this one.

    A name that a rule asks for no broken glass replaces: `tiphys.policies.gate.lacking`.
    """
    judgement = last.judgement or {}
    people = [int(v["verdict"].get("people", 1)) for v in judgement.get("verdicts", ())]
    return bool(view.incident.proposer) or max(people, default=0) > 1


def _asking(decision: dict[str, Any]) -> Block | None:
    """Ask once more where a wrong yes hurts most."""
    if decision.get("risk") != Risk.HIGH and decision.get("reversible", True):
        return None
    words = shown(f"{decision['blast_radius']}. Undo: {decision['undo']}", 300)
    return blocks.confirm("Approve this plan?", words, "Approve", "Not yet")


def undoable(view: IncidentView, last: AttemptView) -> str | None:
    """Name the run that a person may have undone: verified, reversible, and no undo itself."""
    run = last.run
    if run is None or run["open"] or run["outcome"] != Outcome.VERIFIED:
        return None
    if view.incident.undoes or not last.decision.get("reversible"):
        return None
    return str(run["workflow"])


def plain_card(view: IncidentView) -> Card:
    """Draw the least that must be said, where the whole cannot be."""
    incident = view.incident
    said = f"{incident.id} is {incident.state}: {incident.title}. {incident.reason}"
    made = [blocks.section(shown(said, 2000)), blocks.context(f"Everything: {rest_of(view)}")]
    return Card(made, spoken(said, 600))

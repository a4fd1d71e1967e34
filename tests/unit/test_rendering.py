"""Incidents in the terminal: everything that matters is there, nothing from outside acts there."""

from typing import Any

import pytest
from rich.console import Console

from tiphys.service.records import AuditEvent
from tiphys.service.rendering import incident_page, incidents_table, print_page
from tiphys.service.telling import plain, sentence

Json = dict[str, Any]
EVIL = "[bold]x[/bold] \x1b[31mred\x1b[0m \x07\u202e\r\n\x9b2J [link=http://evil]y[/link]"

INCIDENT: Json = {
    "id": "inc-abcd2345",
    "state": "running",
    "severity": "critical",
    "attempt": 2,
    "title": "KubePodCrashLooping on pod shop/cart-1",
    "reason": "restart-pod-v1 runs",
}
TARGET: Json = {"kind": "Pod", "namespace": "shop", "name": "cart-1"}
PROPOSAL: Json = {
    "answer": "proposal",
    "reason": "it crashes",
    "action": "restart-pod",
    "version": 1,
    "target": TARGET,
    "risk": "low",
    "blast_radius": "one pod",
    "undo": "nothing to undo",
    "changes": [{"path": "/spec/x", "present": 1, "intended": 2}],
    "decided_by": {"reasoner": "playbooks", "playbook": "crash-loop", "model": "", "note": ""},
}
STEP: Json = {"step": "act", "phase": "Succeeded", "result": "acted", "message": "deleted it"}
JUDGEMENT: Json = {
    "policy": "demo 1",
    "verdicts": [
        {"rule": "risk", "verdict": {"verdict": "needs_approval", "reason": "high risk"}},
        {"rule": "breaker", "verdict": {"verdict": "allowed"}},
        {"rule": "cooldown", "verdict": {"verdict": "denied", "reason": "rests"}},
    ],
}
PLAN: Json = {"changes": PROPOSAL["changes"]}
_OLD: Json = {"api_version": "v1", "kind": "Pod", "namespace": "shop", "name": "old", "uid": "u"}
ENDS: Json = {"changes": [{"of": _OLD, "path": "", "present": {}, "intended": None}]}


def record(event: str, body: Any) -> Json:
    return {"seq": 1, "at": "2026-03-04T03:00:00.123456Z", "event": event, "actor": "gate",
            "incident_id": "inc-abcd2345", "body": body}  # fmt: skip


def page(**more: Any) -> Json:
    attempt: Json = {
        "attempt": 2,
        "decision": PROPOSAL,
        "notes": ["on-call: it fires"],
        "judgement": JUDGEMENT,
        "plan_digest": "d1" * 32,
        "workflow": "tiphys-aaaa",
        "run": {"workflow": "tiphys-aaaa", "outcome": None, "open": True, "steps": [STEP]},
    }
    return {
        "incident": INCIDENT,
        "alerts": [
            {
                "labels": {"alertname": "KubePodCrashLooping", "pod": "cart-1"},
                "status": "firing",
                "starts_at": "2026-03-04T03:00:00Z",
            }
        ],
        "evidence": [
            {
                "id": "ev-1",
                "source": "kubernetes",
                "summary": "7 restarts",
                "question": "get pods",
                "asked_at": "2026-03-04T03:00:01Z",
                "ok": True,
            }
        ],
        "attempts": [attempt],
        "timeline": [record("run_step", {"step": STEP})],
        **more,
    }


def shown(renderable: Any) -> str:
    console = Console(width=200, record=True, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_page_tells_what_was_seen_decided_judged_and_done() -> None:
    told = shown(incident_page(page()))
    for words in (
        "inc-abcd2345", "running", "critical", "attempt 2", "KubePodCrashLooping", "pod=cart-1",
        "ev-1", "7 restarts", "proposal: it crashes", "restart-pod-v1 on Pod shop/cart-1, risk low",
        "blast radius: one pod", "undo: nothing to undo", "/spec/x: 1 → 2",
        "decided by playbooks crash-loop", "on-call: it fires", "gate (demo 1): 3 rules",
        "needs approval by risk: high risk", "denied by cooldown: rests", "d1d1d1d1d1d1d1d1",
        "tiphys-aaaa open", "acted", "deleted it", "run_step",
    ):  # fmt: skip
        assert words in told, words


def test_a_page_without_an_action_is_shown_too() -> None:
    answer = {"answer": "no_action", "reason": "over", "decided_by": PROPOSAL["decided_by"]}
    bare = {"attempt": 1, "decision": answer, "notes": [], "judgement": None, "plan_digest": None,
            "workflow": None, "run": None}  # fmt: skip
    told = shown(incident_page(page(attempts=[bare], evidence=[], alerts=[], timeline=[])))
    assert "no action: over" in told
    assert "gate" not in told


def test_a_wish_says_whose_it_is_and_what_is_in_no_namespace_stands_alone() -> None:
    node = {**TARGET, "kind": "Node", "namespace": "", "name": "worker-1"}
    attempt = {**page()["attempts"][0], "decision": {**PROPOSAL, "target": node}}
    wish = {**INCIDENT, "undoes": None, "wants": {"by": "ada"}}
    told = shown(incident_page(page(incident=wish, alerts=[], attempts=[attempt])))
    assert "Alerts: none; ada asked for it" in told
    assert "restart-pod-v1 on Node worker-1, risk low" in told


def test_a_run_that_never_started_and_a_judgement_without_objection_are_told() -> None:
    view = page()
    view["attempts"][0]["run"] |= {"open": False, "steps": []}
    view["attempts"][0]["judgement"] = {**JUDGEMENT, "verdicts": [JUDGEMENT["verdicts"][1]]}
    told = shown(incident_page(view))
    assert "never ran" in told
    assert "none objects" in told


def test_text_from_outside_reaches_the_terminal_as_text() -> None:
    view = page(incident={**INCIDENT, "title": EVIL, "reason": EVIL})
    view["alerts"][0]["labels"] = {"alertname": EVIL, "pod": EVIL}
    view["evidence"][0] |= {"summary": EVIL, "question": EVIL}
    view["attempts"][0]["notes"] = [EVIL]
    view["attempts"][0]["decision"] = {**PROPOSAL, "reason": EVIL, "blast_radius": EVIL}
    view["attempts"][0]["run"]["steps"] = [{**STEP, "message": EVIL}]
    view["timeline"] = [record(AuditEvent.PAGED, {"reason": EVIL})]
    console = Console(width=400, force_terminal=True, color_system="truecolor", markup=False)
    with console.capture() as capture:
        print_page(console, view)
    told = capture.get()
    assert "\x1b[31m" not in told, "no colour of theirs"
    assert "\x1b]8;" not in told, "no link of theirs"
    assert not {"\x07", "\x9b", "\u202e", "\r"} & set(told)
    assert "[bold]x[/bold]" in told, "their markup is shown, not obeyed"
    assert "\x07" not in shown(incidents_table([view["incident"]]))
    assert "[bold]x[/bold]" in shown(incidents_table([view["incident"]]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a\nb\tc", "a b c"), ("\x1b[2J", " [2J"), (None, "None"), (7, "7"), ("é → ü", "é → ü")],
)
def test_plain(given: object, expected: str) -> None:
    assert plain(given) == expected


@pytest.mark.parametrize("length", [9, 10, 11, 10_000])
def test_plain_is_bounded(length: int) -> None:
    text = plain("x" * length, 10)
    assert len(text) <= 10
    assert text.endswith("…") is (length > 10)


WORKFLOW: Json = {"workflow": "tiphys-aaaa", "template": "restart-pod-v1"}


@pytest.mark.parametrize(
    ("event", "body", "words"),
    [
        ("incident_opened", {"title": "T", "subject": "s"}, "T → inc-abcd2345"),
        ("alert_opened", {"alert": "A"}, "A fires too"),
        ("alert_ended", {"alert": "A"}, "A is over"),
        ("alert_ended", {"alert": "A", "labels": {"pod": "p", "node": "n"}}, "A on pod p is over"),
        ("decided", {"decision": PROPOSAL}, "restart-pod: it crashes"),
        ("decided", {"decision": {"answer": "no_action", "reason": "r"}}, "no action: r"),
        ("judged", {"judgement": JUDGEMENT}, "risk needs approval: high risk; cooldown denied"),
        (
            "judged",
            {"judgement": {"verdicts": JUDGEMENT["verdicts"][1:2]}},
            "all 1 rules allow it",
        ),
        ("planned", {"digest": "d" * 64, "plan": PLAN}, "dddddddddddd: /spec/x: 1 → 2"),
        ("planned", {"digest": "d" * 64, "plan": ENDS}, "dddddddddddd: Pod shop/old is deleted"),
        (
            "launch_intended",
            {**WORKFLOW, "not_after": "2026-03-04T03:10:00+00:00"},
            "to start until 03:10:00",
        ),
        ("workflow_created", {**WORKFLOW, "adopted": False}, "tiphys-aaaa created from"),
        ("workflow_created", {**WORKFLOW, "adopted": True}, "found, as created before"),
        ("run_step", {"step": STEP}, "act: acted; deleted it"),
        ("run_ended", {"outcome": "rolled_back", "why": "w"}, "rolled back: w"),
        ("target_frozen", {"reason": "frozen for a reason"}, "frozen for a reason"),
        ("service_started", {"policy": "demo", "holder": "h"}, "policy=demo holder=h"),
        ("service_stopped", None, ""),
    ],
)
def test_a_sentence_for_each_record(event: str, body: Any, words: str) -> None:
    assert words in sentence(record(event, body))


@pytest.mark.parametrize("event", list(AuditEvent))
def test_a_record_of_another_version_is_no_reason_to_fail(event: AuditEvent) -> None:
    sentence(record(f"{event}_v2", {"new": [1, 2]}))

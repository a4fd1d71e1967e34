"""Incidents in the terminal: everything that matters is there, nothing from outside acts there."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from tiphys.service.account import duration
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
        "inc-abcd2345", "running", "critical", "attempt 2", "KubePodCrashLooping fires",
        "pod=cart-1", "it fires", "it crashes", "By the playbook crash-loop",
        "restart-pod-v1 on Pod shop/cart-1, risk low, plan d1d1d1d1d1d1d1d1",
        "Touches: one pod", "Undone: nothing to undo", "/spec/x: 1 → 2",
        "needs approval by risk: high risk", "denied by cooldown: rests",
        "the other 1 rules of demo 1 allow it", "03:00:00  act: acted; deleted it",
        "1 pieces of evidence and 1 records: tiphys incidents show inc-abcd2345 --all",
    ):  # fmt: skip
        assert words in told, words
    assert "7 restarts" not in told
    whole = shown(incident_page(page(), whole=True))
    for words in ("ev-1", "7 restarts", "get pods", "run_step"):
        assert words in whole, words


def test_a_page_without_an_action_is_shown_too() -> None:
    answer = {"answer": "no_action", "reason": "over", "decided_by": PROPOSAL["decided_by"]}
    bare = {"attempt": 1, "decision": answer, "notes": [], "judgement": None, "plan_digest": None,
            "workflow": None, "run": None}  # fmt: skip
    told = shown(incident_page(page(attempts=[bare], evidence=[], alerts=[], timeline=[])))
    assert "WHAT FOLLOWS: NOTHING IS TO BE DONE\nover\n" in told
    for heading in ("PROPOSED", "RULED OUT", "RULES", "WRONG", "HAPPENED", "SEEN"):
        assert heading not in told, "no heading without anything under it"


def test_a_wish_says_whose_it_is_and_what_is_in_no_namespace_stands_alone() -> None:
    node = {**TARGET, "kind": "Node", "namespace": "", "name": "worker-1"}
    attempt = {**page()["attempts"][0], "decision": {**PROPOSAL, "target": node}}
    wish = {**INCIDENT, "undoes": None, "wants": {"by": "ada"}}
    told = shown(incident_page(page(incident=wish, alerts=[], attempts=[attempt])))
    assert "Alerts: none; ada asked for it" in told
    assert "restart-pod-v1 on Node worker-1, risk low" in told


def test_a_judgement_without_objection_is_told_in_one_line() -> None:
    view = page()
    view["attempts"][0]["judgement"] = {**JUDGEMENT, "verdicts": [JUDGEMENT["verdicts"][1]]}
    assert "demo 1: none of 1 rules objects" in shown(incident_page(view))


def test_what_was_ruled_out_and_what_could_go_wrong_is_told() -> None:
    ruled = [{"action": "rollout-undo", "because": "nothing was released lately"}]
    decision = {**PROPOSAL, "ruled_out": ruled, "risks": "its disk is lost", "reversible": False}
    view = page()
    view["attempts"][0]["decision"] = decision
    told = shown(incident_page(view))
    for words in (
        "RULED OUT", "rollout-undo: nothing was released lately", "WHAT COULD GO WRONG",
        "its disk is lost", "if it does not help, nothing can be rolled back; a person is told",
    ):  # fmt: skip
        assert words in told, words
    decision["reversible"], decision["risks"] = True, ""
    assert "it is rolled back, and that is checked" in shown(incident_page(view))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("awaiting_approval", "until 03:20:00 UTC: tiphys approve inc-abcd2345, or tiphys deny"),
        ("escalated", "It needs a person: tiphys acknowledge inc-abcd2345"),
    ],
)
def test_what_a_person_has_to_do_stands_at_the_top(state: str, words: str) -> None:
    limit = "2026-03-04T03:20:00Z"
    told = shown(incident_page(page(incident={**INCIDENT, "state": state, "deadline_at": limit})))
    assert words in "".join(told.splitlines()[:4])


def test_nothing_is_said_twice() -> None:
    view = page(incident={**INCIDENT, "state": "escalated", "reason": PROPOSAL["reason"]})
    paged = record(AuditEvent.PAGED, {"reason": PROPOSAL["reason"], "how": "alertmanager"})
    view["timeline"] = [record(AuditEvent.DECIDED, {"decision": PROPOSAL}), *[paged] * 7]
    view["attempts"][0]["notes"] = [
        "on-call: it crashes",
        "kubectl: 7 restarts",
        "kubectl: 7 restarts",
    ]
    told = shown(incident_page(view))
    assert told.count(PROPOSAL["reason"]) == 1
    assert told.count("7 restarts") == 1
    assert "03:00:00  a person is called (7 times)" in told


def test_a_log_is_quoted_and_a_silent_source_named() -> None:
    log = {"id": "ev-2", "source": "logs", "summary": "the log ends: c", "ok": True,
           "question": "logs shop/cart-1 -c app", "answer": ["a", "b", EVIL, "d"],
           "asked_at": "2026-03-04T03:00:02Z"}  # fmt: skip
    away = {**log, "id": "ev-3", "source": "prometheus", "ok": False, "question": "up == 0",
            "summary": "no answer: Prometheus is away"}  # fmt: skip
    view = page(evidence=[log, away])
    view["attempts"][0]["decision"] = {**PROPOSAL, "evidence": ["ev-2"]}
    told = shown(incident_page(view))
    assert "the log of shop/cart-1 -c app ends: [ev-2]" in told
    assert "  > b" in told
    assert "  > a" not in told
    assert "no answer: Prometheus is away [up == 0; ev-3]" in told
    assert not {"\x07", "\x9b", "\u202e", "\r"} & set(told)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (37.4, "37 s"), (720, "12 min"), (11_100, "3 h 5 min"), (187_200, "2 d 4 h")],
)
def test_spans_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_list_has_one_line_for_each_incident() -> None:
    now = datetime(2026, 3, 4, 5, tzinfo=UTC)
    one = {**INCIDENT, "opened_at": "2026-03-04T03:00:00Z", "decision": "escalate",
           "state": "awaiting_approval",
           "reason": "4 of 4 pods do not report ready " * 9}  # fmt: skip
    console = Console(width=110, color_system=None)
    with console.capture() as capture:
        console.print(incidents_table([one, {**one, "title": EVIL}], now))
    head, first, second = capture.get().rstrip("\n").splitlines()
    assert head.split() == [
        "incident",
        "state",
        "severity",
        "age",
        "about",
        "decision",
        "and",
        "why",
    ]
    for words in ("inc-abcd2345", "awaiting approval", "critical", "2 h", "KubePodCrash",
                  "for a person: 4 of 4 pods"):  # fmt: skip
        assert words in first, words
    assert max(len(line) for line in (first, second)) <= 110


def test_text_from_outside_reaches_the_terminal_as_text() -> None:
    view = page(incident={**INCIDENT, "title": EVIL, "reason": EVIL})
    view["alerts"][0]["labels"] = {"alertname": EVIL, "pod": EVIL}
    view["evidence"][0] |= {"summary": EVIL, "question": EVIL}
    view["attempts"][0]["notes"] = [EVIL]
    ruled = [{"action": "restart-pod", "because": EVIL}]
    said = {"reason": EVIL, "blast_radius": EVIL, "risks": EVIL, "ruled_out": ruled}
    view["attempts"][0]["decision"] = {**PROPOSAL, **said}
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

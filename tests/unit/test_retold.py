"""The reader of retold evidence: denials, numbers, times, Xids, and lines that take no time."""

import time
from typing import Any

import pytest

from tiphys.agents.symptoms import SYMPTOMS
from tiphys.service.evaluation.retold.gpus import counted
from tiphys.service.evaluation.retold.numbers import falls_back, rises
from tiphys.service.evaluation.retold.reader import read
from tiphys.service.evaluation.retold.words import MAX_ANSWER, lexicon, read_item, table


def seen(*answers: tuple[str, str], alert: str = "Something", **labels: str) -> set[str]:
    evidence = [{"kind": "log", "q": q, "a": a} for q, a in answers]
    facts: Any = read(alert, labels, evidence).facts
    return {name for name, value in facts["symptoms"].items() if value is True}


def test_readings_name_concepts_and_symptoms_that_exist() -> None:
    concepts = set(table("lexicon.yaml")["concepts"])
    for name, rules in table("readings.yaml")["symptoms"].items():
        assert name in SYMPTOMS
        for rule in rules:
            scope, *rest = rule.replace("+", " ").replace("-", " ", 0).split()
            assert scope in {"statement", "item", "case", "alert", "severity"}
            words = [w.strip('"').removeprefix("no:") for w in rest if w not in {"+", "-"}]
            known = [w for w in words if scope != "severity" and not w.startswith("#")]
            assert [w for w in known if w not in concepts] == [], rule


def test_what_is_denied_is_not_said() -> None:
    item = read_item("log", "q", "no certificate expired; OOMKilled; without a panic")
    assert "oom" in item.said
    assert "code_fault" not in item.said
    assert "expired" not in item.said
    assert "names_unresolved" not in seen(("dns", "no name resolution errors"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("920 to 5790 in six min", True, id="rises"),
        pytest.param("0 to 0.6 at 15:01", True, id="from-nothing"),
        pytest.param("p95 240 ms to 2.9 s", True, id="units"),
        pytest.param("5790 to 920", False, id="falls"),
        pytest.param("100 to 110", False, id="hardly"),
    ],
)
def test_a_rise_is_by_half_at_least(text: str, expected: bool) -> None:
    assert rises(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Xid 94, contained; no Xid 48, 63 or 95", {94: 1}, id="denied"),
        pytest.param("Xid 48 followed by Xid 64", {48: 1, 64: 1}, id="two"),
        pytest.param("Xid 13 five times", {13: 5}, id="repeated"),
        pytest.param("eight lines Xid 45 within one second", {45: 1}, id="at-once"),
        pytest.param("no Xid at all", {}, id="none"),
    ],
)
def test_xids_are_counted_as_told(text: str, expected: dict[int, int]) -> None:
    assert dict(counted([read_item("log", "dmesg", text)], {})) == expected


def test_an_order_of_times_tells_which_release_began_it() -> None:
    latency = ("p99 of search", "40 until 08:12, then 900")
    early = ("deploys", "08:10 a commit without an index")
    both = ("deploys", "08:10 a commit without an index; 10:30 a commit with a new colour scheme")
    assert "release_began_it" in seen(latency, early)
    assert "earlier_release_began_it" not in seen(latency, early)
    assert "earlier_release_began_it" in seen(latency, both)
    assert "release_began_it" not in seen(latency, ("deploys", "08:10 docs only, unrelated"))


def test_what_was_not_understood_is_listed() -> None:
    reading = read("X", {}, [{"kind": "log", "q": "q", "a": "the blorp frobnicates"}])
    assert reading.not_understood == ["the blorp frobnicates"]


def test_no_text_takes_long() -> None:
    lexicon()
    hostile = ("no pod is not ready, " + "a" * 50 + " 1 to 2 " + "new " * 20) * 300
    read_item("log", "q", "x")
    started = time.process_time()
    read_item("log", hostile, hostile)
    assert len(hostile) > MAX_ANSWER
    assert time.process_time() - started < 20


FINE = ("get pods", "all Running, no restarts")


def test_trouble_that_nobody_explains_is_told_apart() -> None:
    failing = ("logs", "uploads fail")
    assert "unexplained_trouble" in seen(failing, FINE)
    assert "all_quiet" not in seen(failing, FINE)
    assert "unexplained_trouble" not in seen(("logs", "no upload fails"), FINE)
    assert "all_quiet" in seen(("p99", "unchanged"), FINE)
    assert "all_quiet" not in seen(("proxy", "zork 17"), FINE)


@pytest.mark.parametrize(
    ("now", "planned"),
    [
        pytest.param("it is 22:09", True, id="within"),
        pytest.param("it is 23:10", False, id="past"),
    ],
)
def test_announced_work_counts_while_it_is_going_on(now: str, planned: bool) -> None:
    node = ("get node n-1", "NotReady,SchedulingDisabled for 5 min")
    calendar = ("maintenance calendar", f"reboot of n-1, 22:00-22:30; {now}")
    assert ("work_expected" in seen(node, calendar)) is planned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("4120 at 15:06, about 210 since 15:11", True, id="back"),
        pytest.param("0 from 09:31 to 09:39, 1 since", True, id="up-again"),
        pytest.param("210 at 15:06, 4120 since 15:11", False, id="worse"),
        pytest.param("0 since 15:11", False, id="nothing-before"),
    ],
)
def test_a_quantity_falls_back(text: str, expected: bool) -> None:
    assert falls_back(text) is expected

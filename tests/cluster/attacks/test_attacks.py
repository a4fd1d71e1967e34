"""Every attack is refused by the real API server; what is legitimate is not.

One run of everything, made at once and judged by each test: most of it is waiting for answers.
"""

import os

import document
import siege
from asking import Answer
from attack import Outcome
from siege import Day


def told(outcome: Outcome, answer: Answer) -> str:
    attack = outcome.attack
    return f"{outcome.section}: {attack.title}, as {attack.who}: {answer.status} {answer.message}"


def test_every_attack_is_refused(day: Day) -> None:
    came_through = [
        told(one, answer)
        for one in day.refused
        for answer in (*one.own, *one.wide)
        if not answer.wall
    ]
    assert not came_through
    assert all(one.own or one.wide for one in day.refused)
    assert sum(len(one.own) + len(one.wide) for one in day.refused) > 1_500


def test_none_is_refused_by_an_expression_that_failed(day: Day) -> None:
    failed = [
        told(one, answer)
        for one in day.refused
        for answer in (*one.own, *one.wide)
        if "resulted in error" in answer.message or "failed to configure" in answer.message
    ]
    assert not failed


def test_what_is_legitimate_goes_through(day: Day) -> None:
    held_up = [
        told(one, answer)
        for one in day.let_through
        # Those who have a token are asked about with it; the others by their names alone.
        for answer in (one.own or one.wide)
        if answer.status >= 300
    ]
    assert not held_up


def test_the_document_says_so(day: Day) -> None:
    text = document.written(siege.sections(), day.refused, day.let_through)
    if os.environ.get("TIPHYS_ATTACKS") == "write":
        document.PATH.write_text(text)
    assert document.PATH.read_text() == text, "reviewed? then: TIPHYS_ATTACKS=write"

"""The mixin's rules are made faster, and nothing else about them changes."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from hasten import FACTOR, INTERVAL_SECONDS, LEAST_FOR, LEAST_WINDOW, hasten, hastened, seconds

RULES = Path(__file__).parents[2] / "data" / "rules"
FILES = ("prometheus_alerts.yaml", "prometheus_rules.yaml")


def rules_in(name: str) -> dict[str, Any]:
    return yaml.safe_load((RULES / name).read_text())


def pairs(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    before = rules_in(name)
    after = hasten(before)
    return [
        (old, new)
        for one, other in zip(before["groups"], after["groups"], strict=True)
        for old, new in zip(one["rules"], other["rules"], strict=True)
    ]


def waits(expression: str) -> tuple[list[float], str]:
    """Give an expression's waits in order, as PromQL's own parser reads them, and the rest."""
    found: list[float] = []

    def visit(node: object) -> None:
        for name in ("range", "step", "offset"):
            value = getattr(node, name, None)
            if isinstance(value, timedelta):
                found.append(value.total_seconds())

    tree = promql_parser.parse(expression)
    promql_parser.walk(tree, visit)
    rest = expression
    for token in ("[", "offset "):
        parts = rest.split(token)
        rest = token.join(
            [parts[0], *(part.lstrip("-0123456789smhdwy:").lstrip() for part in parts[1:])]
        )
    return found, rest


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("rate(a[5m])", "rate(a[10s])"),
        ("rate(a[2m])", "rate(a[10s])"),  # never too short for four scrapes
        ("rate(a[1h])", "rate(a[120s])"),
        ("rate(a[1h30m])", "rate(a[180s])"),
        ("rate(a[3s])", "rate(a[3s])"),  # never longer than it was
        ("rate(a[ 10m ])", "rate(a[20s])"),
        ("max_over_time(a[1h:5m])", "max_over_time(a[120s:10s])"),
        ("max_over_time(a[1h:])", "max_over_time(a[120s:])"),
        ("a offset 10m", "a offset 20s"),
        ("a offset -10m", "a offset -20s"),
        ('a{b="rate(x[5m]) offset 5m"}', 'a{b="rate(x[5m]) offset 5m"}'),
        (r'a{b="\"[5m]"}', r'a{b="\"[5m]"}'),
        ("a # every [5m]\n> 1", "a # every [5m]\n> 1"),
        ("a:b:rate5m > 300", "a:b:rate5m > 300"),
        ("time() - a > 43200", "time() - a > 43200"),
    ],
)
def test_only_waits_are_shortened(given: str, wanted: str) -> None:
    assert hastened(given) == wanted


@pytest.mark.parametrize("name", FILES)
def test_expressions_differ_in_their_waits_alone(name: str) -> None:
    changed = 0
    for old, new in pairs(name):
        before, rest = waits(old["expr"])
        after, other_rest = waits(new["expr"])
        assert rest == other_rest
        assert len(before) == len(after)
        for was, now in zip(before, after, strict=True):
            assert now <= was
            assert now == min(was, max(LEAST_WINDOW, was / FACTOR))
            changed += now < was
    assert changed > 5


@pytest.mark.parametrize("name", FILES)
def test_everything_but_waits_is_kept(name: str) -> None:
    for old, new in pairs(name):
        kept = {"alert", "record", "labels", "annotations", "expr", "for"}
        assert set(old) == set(new) <= kept
        assert all(old[k] == new[k] for k in old if k not in {"expr", "for"})
        if "for" in old:
            was = seconds(old["for"])
            assert seconds(new["for"]) == min(was, max(LEAST_FOR, was / FACTOR))


def test_every_group_is_evaluated_often() -> None:
    for name in FILES:
        before, after = rules_in(name)["groups"], hasten(rules_in(name))["groups"]
        assert [g["name"] for g in before] == [g["name"] for g in after]
        assert {g["interval"] for g in after} == {f"{INTERVAL_SECONDS}s"}


def test_a_window_holds_four_scrapes() -> None:
    assert LEAST_WINDOW >= 4 * INTERVAL_SECONDS


def test_the_given_rules_are_left_alone() -> None:
    given = rules_in(FILES[0])
    hasten(given)
    assert given == rules_in(FILES[0])


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5x", "-5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)

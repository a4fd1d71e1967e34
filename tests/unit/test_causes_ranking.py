"""Which component is called the cause, given what changed and who calls whom."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.agents.causes.ranking import Causes, find_causes
from tiphys.agents.causes.signals import Kind, Scene, Signal, Symptom, Window
from tiphys.agents.causes.words import sentences
from tiphys.service.evaluation.nezha import NezhaDay
from tiphys.service.evaluation.petshop import PetShopTraffic

STEP = 60.0
WINDOW = Window(3600.0, 3600.0 + 6 * STEP, STEP)
DATA = Path(__file__).resolve().parents[1] / "data" / "rca"
CHAIN = {"web": ["shop", "ads"], "shop": ["cart", "mail"], "cart": ["db"]}


def series(level: float, after: float | None = None, at: int = 2, seed: int = 1) -> list[float]:
    noise = 1 + 0.02 * np.random.default_rng(seed).normal(size=66)
    return [
        float((after if after is not None and i >= 60 + at else level) * n)
        for i, n in enumerate(noise)
    ]


def one(component: str, kind: Kind, values: Sequence[float]) -> Signal:
    points = [(STEP * i + STEP / 2, v) for i, v in enumerate(values)]
    return Signal(component, kind, kind.value, points)


def latencies(changed: Mapping[str, float], among: Sequence[str]) -> list[Signal]:
    return [one(c, Kind.LATENCY, series(0.1, changed.get(c), seed=i)) for i, c in enumerate(among)]


ALL = ["web", "shop", "ads", "cart", "mail", "db"]


def first(causes: Causes) -> str:
    return causes.ranked[0].component


def test_the_callee_explains_its_callers_and_not_the_other_way_round() -> None:
    causes = find_causes(Scene(WINDOW, latencies({"web": 9, "shop": 5, "cart": 2}, ALL), CHAIN))
    assert first(causes) == "cart"
    assert set(causes.ranked[0].explains) == {"shop", "web"}
    assert {c.component for c in causes.followed} == {"shop", "web"}


def test_a_cycle_of_calls_is_walked_once() -> None:
    calls = {"a": ["b", "a"], "b": ["c"], "c": ["a", "d"], "d": []}
    causes = find_causes(Scene(WINDOW, latencies({"a": 1, "b": 1, "d": 1}, list("abcd")), calls))
    assert first(causes) in {"a", "b", "d"}
    assert set(find_causes(Scene(WINDOW, latencies({"d": 1}, list("abcd")), calls)).blind) == set()


def test_what_only_it_has_is_not_explained_by_a_callee() -> None:
    signals = latencies({"web": 0.4}, ALL)
    signals += [one("web", Kind.CPU, series(0.2, 0.95)), one("db", Kind.CPU, series(0.2))]
    causes = find_causes(Scene(WINDOW, signals, CHAIN))
    assert first(causes) == "web"
    signals = [*latencies({"ads": 0.3}, ALL), one("web", Kind.CPU, series(0.2, 0.95))]
    ranked = {c.component: c for c in find_causes(Scene(WINDOW, signals, CHAIN)).ranked}
    assert not ranked["ads"].explains, "slow calls do not use the caller's CPU"


def test_names_do_not_break_ties() -> None:
    for names in ("ab", "ba"):
        signals = [one(c, Kind.LATENCY, series(0.1, 3.0)) for c in names]
        assert [c.component for c in find_causes(Scene(WINDOW, signals)).ranked] == list(names)


def test_load_is_not_held_against_the_callee() -> None:
    signals = [
        *latencies({"shop": 0.5}, ALL),
        one("cart", Kind.REQUESTS, series(10, 500)),
        one("shop", Kind.REQUESTS, series(10)),
    ]
    causes = find_causes(Scene(WINDOW, signals, CHAIN))
    assert first(causes) == "shop"
    assert "cart" not in [c.component for c in causes.ranked]
    assert "cart" in {c.component for c in causes.followed}


def test_more_load_where_it_comes_in_is_a_cause() -> None:
    signals = [*latencies({}, ALL), one("web", Kind.REQUESTS, series(10, 500))]
    assert first(find_causes(Scene(WINDOW, signals, CHAIN))) == "web"


def test_who_stopped_calling_is_blamed_and_not_who_is_no_longer_called() -> None:
    signals = latencies({}, ALL)
    for i, component in enumerate(ALL):
        lost = component in {"cart", "mail", "db"}
        signals.append(one(component, Kind.REQUESTS, series(50, 0.5 if lost else None, seed=i)))
    causes = find_causes(Scene(WINDOW, signals, CHAIN))
    assert first(causes) == "shop"
    assert {c.component for c in causes.followed} >= {"cart", "mail"}


def test_slow_calls_that_are_not_told_apart_point_at_one_of_those_called() -> None:
    slow = one("shop", Kind.OUTGOING, series(0.1, 2.0))
    causes = find_causes(Scene(WINDOW, [*latencies({}, ALL), slow], CHAIN))
    assert {c.component for c in causes.ranked} == {"shop", "cart", "mail"}
    busy = [*latencies({}, ALL), slow, one("mail", Kind.CPU, series(0.1, 0.9))]
    assert first(find_causes(Scene(WINDOW, busy, CHAIN))) == "mail"
    apart = [one("cart", Kind.CALL_LATENCY, series(0.1, 2.0)), slow]
    causes = find_causes(Scene(WINDOW, [*latencies({}, ALL), *apart], CHAIN))
    assert {c.component for c in causes.ranked} == {"cart"}


def test_what_the_alert_does_not_depend_on_is_told_apart() -> None:
    scene = Scene(WINDOW, latencies({"ads": 3, "cart": 2, "shop": 2}, ALL), CHAIN, Symptom("shop"))
    causes = find_causes(scene)
    assert first(causes) == "cart"
    assert {c.component for c in causes.elsewhere} == {"ads"}
    assert "ads" not in {c.component for c in causes.ranked}


def test_a_component_outside_the_graph_is_not_ruled_out() -> None:
    scene = Scene(WINDOW, latencies({"lost": 3}, [*ALL, "lost"]), CHAIN, Symptom("shop"))
    assert first(find_causes(scene)) == "lost"


def test_the_same_kind_as_the_complaint_counts_more() -> None:
    signals = [
        one("cart", Kind.LATENCY, series(0.1, 3.0)),
        one("mail", Kind.AVAILABILITY, [min(1.0, v) for v in series(1.0, 0.4)]),
    ]
    for kind, expected in ((Kind.LATENCY, "cart"), (Kind.AVAILABILITY, "mail")):
        assert first(find_causes(Scene(WINDOW, signals, CHAIN, Symptom("shop", kind)))) == expected


def test_two_causes_that_cannot_be_told_apart_are_said_to_be() -> None:
    causes = find_causes(Scene(WINDOW, latencies({"mail": 2, "db": 2}, ["mail", "db", "ads"])))
    assert [c.component for c in causes.unsure] == ["db"]
    assert any("as likely" in s for s in sentences(causes))


def test_the_sentences_say_what_was_seen_and_what_was_not() -> None:
    signals = latencies({"web": 9, "shop": 5, "cart": 2}, [c for c in ALL if c != "mail"])
    said = " | ".join(sentences(find_causes(Scene(WINDOW, signals, CHAIN))))
    for part in ("changed first:", "likeliest cause: cart", "what follows from it: "):
        assert part in said
    assert "for want of data: mail" in said
    quiet = sentences(find_causes(Scene(WINDOW, latencies({}, ALL), CHAIN)))
    assert quiet == ["no series stands out of its own noise: nothing happened that they show"]


def test_what_changed_first_is_by_time() -> None:
    signals = [
        one("shop", Kind.LATENCY, series(0.1, 3.0, at=3)),
        one("cart", Kind.LATENCY, series(0.1, 3.0, at=1)),
    ]
    found = find_causes(Scene(WINDOW, signals)).first
    assert found is not None
    assert (found.component, found.at) == ("cart", WINDOW.start + STEP)


def renamed(scene: Scene, names: Mapping[str, str]) -> Scene:
    return dataclasses.replace(
        scene,
        signals=[
            dataclasses.replace(s, component=names[s.component], name=f"s{i}")
            for i, s in enumerate(scene.signals)
        ],
        calls={names[a]: [names[d] for d in ds] for a, ds in scene.calls.items()},
        symptom=scene.symptom
        and dataclasses.replace(scene.symptom, component=names[scene.symptom.component]),
    )


def recorded() -> list[Scene]:
    sets = [NezhaDay(DATA / "nezha/2022-08-22"), PetShopTraffic(DATA / "petshop/low_traffic")]
    return [fault.scene for one_set in sets for fault in one_set.faults()]


RECORDED = recorded()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, len(RECORDED) - 1), st.randoms(use_true_random=False))
def test_renaming_everything_changes_nothing(which: int, rng: random.Random) -> None:
    scene = RECORDED[which]
    every = {s.component for s in scene.signals} | set(scene.calls)
    every |= {d for ds in scene.calls.values() for d in ds}
    new = [f"n{i:03}" for i in range(len(every))]
    rng.shuffle(new)
    names = dict(zip(sorted(every), new, strict=True))
    plain, other = find_causes(scene), find_causes(renamed(scene, names))
    assert [names[c.component] for c in plain.ranked] == [c.component for c in other.ranked]
    assert [c.score for c in plain.ranked] == pytest.approx([c.score for c in other.ranked])
    assert plain.nothing == other.nothing

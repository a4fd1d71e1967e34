"""What counts as a change of one series, and how sure a change is after all were looked at."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.agents.causes.evidence import FALSE_ALARMS, Change, gather
from tiphys.agents.causes.ranking import find_causes
from tiphys.agents.causes.shifts import adjusted
from tiphys.agents.causes.signals import Kind, Scene, Signal, Window

STEP = 60.0
WINDOW = Window(3600.0, 3600.0 + 6 * STEP, STEP)


def points(values: Sequence[float], start: float = 0.0) -> list[tuple[float, float]]:
    return [(start + STEP * i + STEP / 2, v) for i, v in enumerate(values)]


def noisy(level: float, count: int, seed: int = 1) -> list[float]:
    return [float(v) for v in level * (1 + 0.03 * np.random.default_rng(seed).normal(size=count))]


def signal(values: Sequence[float], kind: Kind = Kind.LATENCY, **more: Any) -> Signal:
    return Signal("a", kind, "x", points(values), **more)


def change(one: Signal, window: Window = WINDOW) -> Change | None:
    found = [c for c in gather([one], window).changes.values() if c.established]
    return found[0] if found else None


def test_a_lasting_step_is_found_where_it_began() -> None:
    found = change(signal([*noisy(1.0, 62), 5.0, 5.1, 5.0, 5.2]))
    assert found is not None
    assert found.at == WINDOW.start + 2 * STEP
    assert (round(found.before), round(found.after)) == (1, 5)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(noisy(1.0, 66), id="noise"),
        pytest.param([*noisy(1.0, 62), 50.0, 1.0, 1.0, 1.0], id="one-odd-point"),
        pytest.param([1.0] * 66, id="constant"),
        pytest.param(noisy(1.0, 58) + [0.2] * 4 + [1.0] * 4, id="back-to-what-is-usual"),
        pytest.param([1.0, 9.0] * 33, id="alternating"),
        pytest.param(noisy(1.0, 30) + noisy(5.0, 36), id="long-before-the-window"),
        pytest.param(noisy(5.0, 61) + noisy(1.0, 5), id="faster-is-no-harm"),
        pytest.param([1.0 + 0.001 * (i > 61) for i in range(66)], id="too-small-to-name"),
        pytest.param(([1.0] * 6 + [5.0] * 4) * 6 + [1.0] * 2 + [5.0] * 4, id="usual-steps"),
    ],
)  # fmt: skip
def test_nothing_is_found_where_nothing_happened(values: list[float]) -> None:
    assert change(signal(values)) is None


def test_a_level_unusual_against_the_normal_stretch_all_along_is_no_change() -> None:
    normal = points(noisy(1.0, 200), start=-1e6)
    one = Signal("a", Kind.LATENCY, "x", points(noisy(4.0, 6), WINDOW.start), normal)
    assert change(one) is None
    late = Signal("a", Kind.LATENCY, "x", points([1.0, 1.0, 4.0, 4, 4, 4], WINDOW.start), normal)
    assert change(late) is not None


def test_a_normal_stretch_says_how_large_steps_usually_are() -> None:
    step = points([1.0, 1.0, 4.0, 4.0, 4.0, 4.0], WINDOW.start)
    jumpy = points(([1.0] * 5 + [4.0] * 5) * 20, start=-1e6)
    assert change(Signal("a", Kind.LATENCY, "x", step, jumpy)) is None


def test_falling_availability_is_a_change_and_rising_is_none() -> None:
    assert change(signal([1.0] * 62 + [0.6, 0.5, 0.6, 0.5], Kind.AVAILABILITY)) is not None
    assert change(signal([0.5] * 62 + [1.0] * 4, Kind.AVAILABILITY)) is None


def test_a_counter_that_resets_has_not_fallen() -> None:
    grows = [float(10 * i) for i in range(40)] + [float(10 * i) for i in range(26)]
    assert change(signal(grows, Kind.REQUESTS, counter=True)) is None
    stops = [float(10 * i) for i in range(62)] + [610.0] * 4
    found = change(signal(stops, Kind.REQUESTS, counter=True))
    assert found is not None
    assert not found.rises


def test_a_counter_grows_over_its_reset_and_in_any_order_of_points() -> None:
    # More at the last two bins only, and its process began anew between them.
    busy = [*(float(10 * i) for i in range(64)), 730.0, 100.0]
    found = change(signal(busy, Kind.REQUESTS, counter=True))
    assert found is not None
    assert found.rises
    mixed = [points(busy)[i] for i in np.random.default_rng(5).permutation(len(busy))]
    assert change(Signal("a", Kind.REQUESTS, "x", mixed, counter=True)) == found


def test_gaps_and_nan_are_not_filled_in() -> None:
    values = [*noisy(1.0, 62), 5.0, float("nan"), 5.0, float("nan")]
    assert change(signal(values)) is None, "no two bins in a row were seen"
    holes = [float("nan") if i % 3 == 0 else v for i, v in enumerate(noisy(1.0, 62))]
    found = change(signal([*holes, 5.0, 5.1, 5.0, 5.2]))
    assert found is not None


def test_order_repeats_and_jitter_of_points_change_nothing() -> None:
    calm = points([*noisy(1.0, 62), 5.0, 5.1, 5.0, 5.2])
    shuffled = [calm[i] for i in np.random.default_rng(3).permutation(len(calm))] + calm[:20]
    moved = [(t + 29.9 + 0.4 * (i % 2), v) for i, (t, v) in enumerate(calm)]
    for other in (shuffled, moved):
        found = change(Signal("a", Kind.LATENCY, "x", other))
        assert found is not None
        assert abs(found.at - (WINDOW.start + 2 * STEP)) <= STEP, "the edge of a bin is in either"


def test_a_reference_too_short_establishes_nothing() -> None:
    young = points([1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0], WINDOW.start - 3 * STEP)
    evidence = gather([Signal("a", Kind.LATENCY, "x", young)], WINDOW)
    assert [c.established for c in evidence.changes.values()] == [False]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param([], "no data in the time looked at", id="empty"),
        pytest.param(points(noisy(1, 60)), "no data in the time looked at", id="ended"),
        pytest.param(points([1.0] * 66, 2e8), "its clock is wrong", id="clock"),
        pytest.param(points([1.0] * 6, WINDOW.start), "no data before", id="just-born"),
        pytest.param(points([float("nan")] * 66), "no data in the time looked at", id="nan"),
    ],
)
def test_what_cannot_be_judged_is_said_and_not_called_healthy(data: Any, why: str) -> None:
    causes = find_causes(Scene(WINDOW, [Signal("a", Kind.CPU, "x", data)]))
    assert [why in u.why for u in causes.unseen] == [True]
    assert list(causes.blind) == ["a"]


def test_a_component_of_the_graph_without_signals_is_not_called_healthy() -> None:
    one = Signal("a", Kind.LATENCY, "x", points(noisy(1, 66)))
    assert find_causes(Scene(WINDOW, [one], {"a": ["b"]})).blind == ["b"]


def test_a_window_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        find_causes(Scene(Window(0, 120, 60), []))


@given(st.lists(st.floats(0, 1), max_size=60))
def test_p_values_are_adjusted_as_benjamini_and_hochberg_say(p: list[float]) -> None:
    got = adjusted(np.array(p))
    ordered = sorted(p)
    for value, found in zip(p, got, strict=True):
        ranks = [(i, q) for i, q in enumerate(ordered, start=1) if q >= value]
        assert found == pytest.approx(min(1.0, *[q * len(p) / i for i, q in ranks], 1.0))


def test_a_kind_of_many_series_is_not_surer_for_their_number() -> None:
    step = signal([*noisy(1.0, 62), 1.5, 1.6, 1.5, 1.6])
    calm = [signal(noisy(1.0, 66, seed)) for seed in range(2, 11)]
    (alone,), (among,) = (gather(s, WINDOW).changes.values() for s in ([step], [step, *calm]))
    assert among.p == pytest.approx(10 * alone.p)


NOISE: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda r, n: 10 + r.normal(size=n),
    "heavy-tailed": lambda r, n: 10 + r.standard_t(3, size=n),
    "lognormal": lambda r, n: np.exp(0.5 * r.normal(size=n)),
    "wandering": lambda r, n: 10 + np.convolve(r.normal(size=n + 3), [0.5, 0.5, 0.5, 0.5], "valid"),
}


@pytest.mark.parametrize("shape", sorted(NOISE))
@pytest.mark.parametrize("trusted", [True, False], ids=["normal-stretch", "recent-history"])
def test_many_series_of_noise_raise_no_more_alarms_than_promised(shape: str, trusted: bool) -> None:
    rng = np.random.default_rng(7)
    scenes = 60
    alarms = 0
    for _ in range(scenes):
        signals: list[Signal] = []
        for i in range(60):
            values = np.abs(NOISE[shape](rng, 266 if trusted else 66))
            if trusted:
                near, far = points(list(values[:6]), WINDOW.start), points(list(values[6:]), -1e6)
                signals.append(Signal(f"c{i}", Kind.LATENCY, "x", near, far))
            else:
                signals.append(Signal(f"c{i}", Kind.LATENCY, "x", points(list(values))))
        alarms += not find_causes(Scene(WINDOW, signals)).nothing
    # Three deviations of a binomial above what is promised.
    promised = FALSE_ALARMS * scenes
    assert alarms <= promised + 3 * (promised * (1 - FALSE_ALARMS)) ** 0.5, alarms


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 50))
def test_the_unit_of_a_ratio_kind_does_not_matter(factor: float, seed: int) -> None:
    values = [*noisy(1.0, 62, seed), 2.0, 2.1, 2.0, 2.2]
    one, other = (gather([signal([v * f for v in values])], WINDOW) for f in (1.0, factor))
    (a,), (b,) = one.changes.values(), other.changes.values()
    assert a.p == pytest.approx(b.p)
    assert a.at == b.at


def test_ten_thousand_series_are_judged_in_bounded_time() -> None:
    values = points(noisy(1.0, 66))
    signals = [Signal(f"c{i % 2000}", Kind.LATENCY, str(i), values) for i in range(10_000)]
    calls = {f"c{i}": [f"c{(i * 7 + k) % 2000}" for k in range(3)] for i in range(2000)}
    before = time.process_time()
    assert find_causes(Scene(WINDOW, signals, calls)).nothing
    assert time.process_time() - before < 15

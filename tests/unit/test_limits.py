"""How often and how much: what each limit counts, at its edges."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.policies.gate import RULES
from tiphys.policies.limits import Breaker, Budget, Cooldown, LaunchRate, NamespaceConcurrency
from tiphys.policies.model import (
    Change,
    Check,
    DecidedBy,
    Facts,
    HistoryFacts,
    ObjectReference,
    Outcome,
    PastRun,
    Proposal,
    Risk,
    Target,
)
from tiphys.policies.oscillation import REMEMBERED, Oscillation, RepeatedIneffective, move_of
from tiphys.policies.rule import FactsMissingError, Request, Rule
from tiphys.policies.verdict import Denied, Verdict

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
TARGET = Target(
    cluster="c1", api_version="apps/v1", kind="Deployment", namespace="shop", name="cart", uid="u1"
)


def replicas(present: int, intended: int) -> Change:
    return Change(path="/spec/replicas", present=present, intended=intended)


UP, DOWN = replicas(2, 4), replicas(4, 2)
PROPOSAL = Proposal(
    action="scale-workload", version=1, target=TARGET, changes=(UP,), risk=Risk.LOW,
    reversible=True, blast_radius="", undo="", reason="", check=Check(), evidence=(),
    decided_by=DecidedBy(reasoner="playbooks"),
)  # fmt: skip
UNDO = PROPOSAL.model_copy(
    update={"undoes": "tiphys-" + "a" * 40, "decided_by": DecidedBy(reasoner="human")}
)


def run(
    began: float,
    *changes: Change,
    ended: float | None = None,
    action: str = "scale-workload",
    outcome: Outcome | None = Outcome.VERIFIED,
    undo: bool = False,
) -> PastRun:
    """A run so many minutes ago, which took one unless it says when it ended."""
    end = began - 1 if ended is None else ended
    return PastRun(
        action=action,
        move=move_of(action, changes or (UP,)),
        undo=undo,
        began_at=NOW - timedelta(minutes=began),
        ended_at=NOW - timedelta(minutes=end),
        outcome=outcome,
    )


def verdict(rule: Rule, proposal: Proposal = PROPOSAL, **history: Any) -> Verdict:
    counted: dict[str, Any] = {
        "open_runs_on_target": 0, "open_runs_in_cluster": 0, "recent_launches_in_namespace": 0,
    }  # fmt: skip
    facts = HistoryFacts.model_validate({**counted, **history})
    return rule.judge(
        Request(
            proposal=proposal,
            facts=Facts(alert=None, target=None, history=facts, stop=None, evidence=()),
            now=NOW,
        )
    )


def denied(rule: Rule, proposal: Proposal = PROPOSAL, **history: Any) -> str:
    """Give the reason, or nothing."""
    said = verdict(rule, proposal, **history)
    return said.reason if isinstance(said, Denied) else ""


# --- what was not counted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        (NamespaceConcurrency(), {}),
        (LaunchRate(), {"recent_launches_in_cluster": 0}),
        (LaunchRate(), {"recent_launches_on_target": 0}),
        (Budget(), {"spent_in_cluster": 0}),
        (Budget(), {"spent_in_namespace": 0}),
        (Cooldown(), {"last_run_ended_at": NOW - timedelta(days=1)}),
        (Oscillation(), {}),
        (RepeatedIneffective(), {}),
    ],
)
def test_what_was_not_counted_is_no_zero(rule: Rule, history: dict[str, Any]) -> None:
    with pytest.raises(FactsMissingError, match="could not be read"):
        verdict(rule, **history)


# --- cooldown -----------------------------------------------------------------------------------


def rest_after(rule: Cooldown, *past: PastRun) -> float:
    """Give how many seconds of rest follow the last of these runs, to the second."""
    last = max(r.ended_at for r in past if r.ended_at)
    low, high = 0, 10_000_000
    while low < high:
        middle = (low + high) // 2
        ago = NOW - timedelta(seconds=middle)
        moved = [
            r.model_copy(
                update={
                    "began_at": r.began_at + (ago - last),
                    "ended_at": r.ended_at and r.ended_at + (ago - last),
                }
            )
            for r in past
        ]
        if denied(rule, past=tuple(moved), last_run_ended_at=ago):
            low = middle + 1
        else:
            high = middle
    return low


def test_the_rest_doubles_with_each_run_in_a_row_up_to_the_most() -> None:
    rule = Cooldown(seconds=600, factor=2, max_seconds=4000, quiet_seconds=20_000)
    row = [run(began) for began in (500, 400, 300, 200, 100)]
    rests = [rest_after(rule, *row[: n + 1]) for n in range(5)]
    assert rests == [600, 1200, 2400, 4000, 4000]


def test_a_quiet_time_starts_the_count_anew() -> None:
    rule = Cooldown(seconds=600, max_seconds=3600, quiet_seconds=7200)
    assert rest_after(rule, run(500), run(500 - 1 - 120)) == 1200, "just not quiet enough"
    assert rest_after(rule, run(500), run(500 - 1 - 121)) == 600


def test_quiet_is_never_shorter_than_the_rest() -> None:
    rule = Cooldown(seconds=600, max_seconds=7200, quiet_seconds=0)
    assert rest_after(rule, run(500), run(400)) == 1200


def test_a_rest_longer_than_the_most_stays_as_it_is() -> None:
    rule = Cooldown(seconds=9000, max_seconds=100)
    assert rest_after(rule, run(500), run(400)) == 9000


def test_the_reason_says_how_many_runs_there_were() -> None:
    past = (run(60), run(30))
    said = denied(Cooldown(), past=past, last_run_ended_at=past[-1].ended_at)
    assert said == "Deployment shop/cart rests for another 60 s after 2 runs in a row"


def test_a_person_who_has_a_run_undone_does_not_wait() -> None:
    past = (run(2),)
    assert not denied(Cooldown(), UNDO, past=past, last_run_ended_at=past[-1].ended_at)


# --- rate and budget ----------------------------------------------------------------------------


def test_a_rate_names_every_limit_that_is_reached() -> None:
    said = denied(
        LaunchRate(limit=2, target_limit=3, cluster_limit=4),
        recent_launches_in_namespace=2, recent_launches_on_target=3, recent_launches_in_cluster=4,
    )  # fmt: skip
    assert said == (
        "2 launches in namespace shop within 600 s, at most 2 may be; "
        "3 launches on Deployment shop/cart within 21600 s, at most 3 may be; "
        "4 launches in the cluster within 600 s, at most 4 may be"
    )


@given(limit=st.integers(2, 500), percent=st.integers(1, 90))
def test_something_is_left_for_both_kinds_whatever_the_share(limit: int, percent: int) -> None:
    rule = Budget(namespace_limit=limit, cluster_limit=limit, reserve_percent=percent)
    ordinary = rule.ordinary(limit)
    assert 1 <= ordinary < limit
    for spent, of, free in (
        (ordinary - 1, PROPOSAL, True),
        (ordinary, PROPOSAL, False),
        (ordinary, UNDO, True),
        (limit - 1, UNDO, True),
        (limit, UNDO, False),
    ):
        for here, over in ((spent, 0), (0, spent)):
            assert free != bool(denied(rule, of, spent_in_namespace=here, spent_in_cluster=over))


def test_an_undo_that_no_person_asked_for_is_no_undo() -> None:
    sly = UNDO.model_copy(update={"decided_by": DecidedBy(reasoner="playbooks")})
    said = denied(Budget(), sly, spent_in_namespace=15, spent_in_cluster=0)
    assert said == (
        "15 of 20 launches of namespace shop within 3600 s are spent, and 5 are kept for undoing"
    )


# --- breakers -----------------------------------------------------------------------------------

V, B, E, U, F, N = (
    Outcome.VERIFIED, Outcome.ROLLED_BACK, Outcome.INEFFECTIVE, Outcome.UNKNOWN,
    Outcome.ROLLBACK_FAILED, Outcome.REFUSED,
)  # fmt: skip
PANEL = Breaker(
    failures=3, failures_window_seconds=600, ineffective=4, ineffective_window_seconds=6000
)


def ends(*outcomes: Outcome, every: float = 1) -> list[tuple[datetime, Outcome]]:
    count = len(outcomes)
    return [(NOW - timedelta(minutes=every * (count - 1 - i)), o) for i, o in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ([], None),
        ([U, F], None),
        ([U, F, U], "3 runs failed within 600 s"),
        ([U, V, F, V, U], "3 runs failed within 600 s"),
        ([B, E, B], None),
        ([B, E, B, E], "4 runs in a row did not help"),
        ([B, E, U, E], "4 runs in a row did not help"),
        ([B, E, V, B, E], None),
        ([B, N, E, N, B, N, E, N], "4 runs in a row did not help"),
        ([N, N, N, N, N], None),
        ([V, B, E, B, E], "4 runs in a row did not help"),
        ([B, E, B, E, V], None),
    ],
)
def test_a_breaker_trips_by_failures_and_by_what_did_not_help(
    outcomes: list[Outcome], why: str | None
) -> None:
    assert PANEL.trips(ends(*outcomes), NOW) == why


def test_what_is_older_than_the_window_does_not_count() -> None:
    assert PANEL.trips(ends(U, F, U, every=5), NOW) is not None
    assert PANEL.trips(ends(U, F, U, every=5.1), NOW) is None
    assert PANEL.trips(ends(B, E, B, E, every=33), NOW) is not None
    assert PANEL.trips(ends(B, E, B, E, every=34), NOW) is None


# --- to and fro ---------------------------------------------------------------------------------


def test_a_b_a_is_refused_and_told() -> None:
    said = denied(Oscillation(), past=(run(60, UP), run(30, DOWN)))
    assert said == (
        "to and fro on Deployment shop/cart: scale-workload at 11:00 UTC, then scale-workload at "
        "11:30 UTC, and now the first again"
    )


@pytest.mark.parametrize(
    ("past", "refused"),
    [
        ((run(60, UP),), False),
        ((run(60, DOWN),), False),
        ((run(90, UP), run(60, UP)), False),
        ((run(90, DOWN), run(60, UP)), False),
        ((run(90, UP), run(60, DOWN)), True),
        ((run(90, replicas(1, 9)), run(60, replicas(9, 3))), True),
        ((run(90, UP), run(60, UP, action="restart-pod")), True),
        ((run(90, UP), run(60, DOWN, undo=True)), True),
        ((run(90, UP), run(60, DOWN), run(30, DOWN)), True),
        ((run(361, UP), run(60, DOWN)), False),
    ],
)
def test_only_what_was_left_for_something_else_is_to_and_fro(
    past: tuple[PastRun, ...], refused: bool
) -> None:
    assert bool(denied(Oscillation(), past=past)) == refused


def test_an_undo_that_a_person_asked_for_goes_where_it_must() -> None:
    past = (run(60, UP), run(30, DOWN))
    assert denied(Oscillation(), past=past)
    assert not denied(Oscillation(), UNDO, past=past)


def of_pod(uid: str) -> Change:
    pod = ObjectReference(api_version="v1", kind="Pod", namespace="shop", name=uid, uid=uid)
    return Change(of=pod, path="", present={"phase": "Failed"}, intended=None)


NOTES = "/spec/template/metadata/annotations"
NOTE = f"{NOTES}/tiphys.io~1restart"


def sets(path: str, present: Any, intended: Any) -> Change:
    return Change(path=path, present=present, intended=intended)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (replicas(2, 4), replicas(7, 9), True),
        (replicas(2, 4), replicas(4, 2), False),
        (sets("/image", "a", "b"), sets("/image", "c", "b"), True),
        (sets("/image", "a", "b"), sets("/image", "b", "a"), False),
        (sets("", {"restarts": 1}, None), sets("", {"restarts": 9}, None), True),
        (of_pod("a"), of_pod("b"), True),
        (sets(NOTE, None, "1a"), sets(NOTE, "1a", "2b"), True),
        (sets(NOTE, "1", "2"), sets(NOTES, None, {"tiphys.io/restart": "1"}), True),
        (sets("/paused", True, False), sets("/paused", False, True), False),
    ],
)
def test_a_move_is_the_same_where_it_would_be_done_again(
    one: Change, other: Change, same: bool
) -> None:
    assert (move_of("a-b", [one]) == move_of("a-b", [other])) == same
    assert move_of("a-b", [one]) != move_of("a-c", [one])


# --- what did not help --------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [B, E, U, F])
def test_what_did_not_help_so_often_is_not_tried_again(outcome: Outcome) -> None:
    rule = RepeatedIneffective(limit=2, window_seconds=7200)
    past = (run(110, outcome=outcome), run(60, outcome=outcome))
    assert denied(rule, past=past) == (
        "scale-workload on Deployment shop/cart did not help 2 times within 7200 s"
    )
    assert not denied(rule, past=past[:1])
    assert not denied(rule, past=(run(121, outcome=outcome), past[1]))
    assert not denied(rule, UNDO, past=past)


@pytest.mark.parametrize("outcome", [V, N, None])
def test_what_helped_or_did_nothing_or_goes_on_does_not_count(outcome: Outcome | None) -> None:
    assert not denied(RepeatedIneffective(limit=1), past=(run(60, outcome=outcome),))


def test_another_action_may_be_tried() -> None:
    past = (run(60, outcome=B, action="restart-pod"),)
    assert not denied(RepeatedIneffective(limit=1), past=past)


def test_no_limit_is_higher_than_what_is_remembered() -> None:
    with pytest.raises(ValueError, match="less than or equal"):
        RepeatedIneffective(limit=REMEMBERED + 1)


# --- the page -----------------------------------------------------------------------------------


def test_every_rule_stands_on_the_page_for_people() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "built-in-rules.md"
    told = page.read_text(encoding="utf-8")
    assert [kind.name for kind in RULES if f"`{kind.name}`" not in told] == []

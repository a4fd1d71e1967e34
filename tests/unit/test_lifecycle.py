"""The table of states: what is not listed cannot happen, and nothing is stuck."""

import pytest

from tiphys.policies.lifecycle import TABLE, TURNS, IllegalMoveError, Move, State, next_state

UNLISTED = [(state, move) for state in State for move in Move if (state, move) not in TABLE]


@pytest.mark.parametrize(("state", "move"), UNLISTED, ids=str)
def test_an_unlisted_move_raises_and_changes_nothing(state: State, move: Move) -> None:
    before = dict(TABLE)
    with pytest.raises(IllegalMoveError, match=f"an incident that is {state} cannot {move}"):
        next_state(state, move)
    assert before == TABLE


@pytest.mark.parametrize(("state", "move"), TABLE, ids=str)
def test_a_listed_move_leads_where_the_table_says(state: State, move: Move) -> None:
    assert next_state(state, move) is TABLE[state, move]


@pytest.mark.parametrize("start", [state for state in State if state is not State.CLOSED])
def test_every_state_but_the_last_can_reach_closed_and_has_a_way_out(start: State) -> None:
    reached = {start}
    while True:
        further = reached | {to for (state, _), to in TABLE.items() if state in reached}
        if further == reached:
            break
        reached = further
    assert State.CLOSED in reached
    assert any(state is start for state, _ in TABLE)


def test_closed_is_final_and_every_state_can_be_entered() -> None:
    assert not [move for state, move in TABLE if state is State.CLOSED]
    assert set(TABLE.values()) | {State.OPEN} == set(State)


@pytest.mark.parametrize("state", [State.LAUNCHING, State.RUNNING])
def test_what_has_been_started_cannot_be_closed_or_suspended_under_its_feet(state: State) -> None:
    for move in (Move.RESOLVE, Move.SUSPEND, Move.ACKNOWLEDGE):
        with pytest.raises(IllegalMoveError):
            next_state(state, move)


def test_nothing_is_launched_but_what_was_proposed_and_inspected() -> None:
    assert [state for state, move in TABLE if move is Move.LAUNCH] == [State.INSPECTED]
    assert [s for (s, _), to in TABLE.items() if to is State.INSPECTED] == [State.PROPOSED]
    assert [state for state, move in TABLE if move is Move.START] == [State.LAUNCHING]
    approved = TABLE[State.AWAITING_APPROVAL, Move.APPROVE]
    assert approved is State.PROPOSED, "facts are read and the gate judges again"


def test_turns_only_go_between_the_agents_and_the_gate() -> None:
    """They are not recorded one by one, so they may decide nothing."""
    between = {(s, to) for (s, move), to in TABLE.items() if move in TURNS}
    pair = (State.PROPOSED, State.INSPECTED)
    assert between == {pair, pair[::-1]}


def test_every_move_is_used() -> None:
    assert {move for _, move in TABLE} == set(Move)

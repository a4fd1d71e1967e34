"""An incident's states as one table; an unlisted move raises and changes nothing."""

from enum import StrEnum


class State(StrEnum):
    """Where an incident stands; each is somebody's or something's turn.

    PROPOSED waits for the agents to read the facts once more; INSPECTED, with those facts on the
    table, for the gate, which the launcher runs.
    """

    OPEN = "open"
    INVESTIGATING = "investigating"
    PROPOSED = "proposed"
    INSPECTED = "inspected"
    AWAITING_APPROVAL = "awaiting_approval"
    LAUNCHING = "launching"
    RUNNING = "running"
    MONITORING = "monitoring"
    SUSPENDED = "suspended"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


class Move(StrEnum):
    """What can happen to an incident."""

    ACKNOWLEDGE = "acknowledge"
    AGREE = "agree"
    APPROVE = "approve"
    ASK = "ask"
    ESCALATE = "escalate"
    INSPECT = "inspect"
    INVESTIGATE = "investigate"
    LAUNCH = "launch"
    LOOK_AGAIN = "look_again"
    PROPOSE = "propose"
    REINVESTIGATE = "reinvestigate"
    REJECT = "reject"
    RESOLVE = "resolve"
    STAND_BY = "stand_by"
    START = "start"
    SUSPEND = "suspend"
    VERIFY = "verify"


TURNS = frozenset({Move.INSPECT, Move.LOOK_AGAIN})
"""Moves that only say whose turn it is, the agents' or the gate's; they decide nothing."""

_UNDECIDED = (
    State.OPEN,
    State.INVESTIGATING,
    State.PROPOSED,
    State.INSPECTED,
    State.AWAITING_APPROVAL,
)
_QUIET = (State.MONITORING, State.SUSPENDED, State.ESCALATED, State.ACKNOWLEDGED)

TABLE: dict[tuple[State, Move], State] = {
    (State.OPEN, Move.INVESTIGATE): State.INVESTIGATING,
    (State.INVESTIGATING, Move.PROPOSE): State.PROPOSED,
    (State.INVESTIGATING, Move.STAND_BY): State.MONITORING,
    (State.INVESTIGATING, Move.ESCALATE): State.ESCALATED,
    (State.PROPOSED, Move.INSPECT): State.INSPECTED,
    (State.PROPOSED, Move.ESCALATE): State.ESCALATED,
    (State.INSPECTED, Move.LOOK_AGAIN): State.PROPOSED,
    (State.INSPECTED, Move.LAUNCH): State.LAUNCHING,
    (State.INSPECTED, Move.ASK): State.AWAITING_APPROVAL,
    (State.INSPECTED, Move.REINVESTIGATE): State.OPEN,
    (State.INSPECTED, Move.STAND_BY): State.MONITORING,
    (State.INSPECTED, Move.ESCALATE): State.ESCALATED,
    (State.AWAITING_APPROVAL, Move.AGREE): State.AWAITING_APPROVAL,
    (State.AWAITING_APPROVAL, Move.APPROVE): State.PROPOSED,
    (State.AWAITING_APPROVAL, Move.REJECT): State.ACKNOWLEDGED,
    (State.AWAITING_APPROVAL, Move.ESCALATE): State.ESCALATED,
    (State.LAUNCHING, Move.START): State.RUNNING,
    (State.LAUNCHING, Move.ESCALATE): State.ESCALATED,
    (State.RUNNING, Move.VERIFY): State.MONITORING,
    (State.RUNNING, Move.REINVESTIGATE): State.OPEN,
    (State.RUNNING, Move.ESCALATE): State.ESCALATED,
    (State.MONITORING, Move.REINVESTIGATE): State.OPEN,
    (State.MONITORING, Move.ESCALATE): State.ESCALATED,
    (State.OPEN, Move.ESCALATE): State.ESCALATED,
    (State.SUSPENDED, Move.REINVESTIGATE): State.OPEN,
    (State.SUSPENDED, Move.ESCALATE): State.ESCALATED,
    (State.ESCALATED, Move.ACKNOWLEDGE): State.ACKNOWLEDGED,
    **{(state, Move.SUSPEND): State.SUSPENDED for state in (*_UNDECIDED, State.MONITORING)},
    **{(state, Move.RESOLVE): State.CLOSED for state in (*_UNDECIDED, *_QUIET)},
}


class IllegalMoveError(Exception):
    """This cannot happen to an incident in that state."""


def next_state(state: State, move: Move) -> State:
    """Give the state after a move; raises `IllegalMoveError` for one that is not in the table."""
    try:
        return TABLE[state, move]
    except KeyError:
        raise IllegalMoveError(f"an incident that is {state} cannot {move}") from None

"""Remembers for which alerts a run was made, and reads what became of such runs.

Invariants: a trial is written in the transaction that records the run's intent; it is read by
index alone, the newest first and bounded, however many there are.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, exists, insert, or_, select, union

from tiphys.agents.experience import (
    HORIZON,
    NEAR_KEPT,
    Aftermath,
    Experience,
    Trial,
    end_of,
    fair,
    tallied,
)
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Alert, AlertFacts, AlertStatus, Incident, Outcome, Plan
from tiphys.policies.plan import workflow_name
from tiphys.service.database import Transaction, moment, stamp
from tiphys.service.tables import inbox, incidents, runs, trials

BY_HAND: Final = ""
"""Stands for the alert where a person asked for the run."""
MOST_NAMES: Final = 5
"""Names of alerts for which one incident's runs are remembered, and asked."""
_WIDE: Final = 200
"""Runs of one alert that are read for its kind of target."""
_NEAR: Final = 40
_NAMESPACES: Final = ("namespace", "exported_namespace")
_NOT_REAL: Final = '"decision":"no_action"'
"""In an incident's body: the agents found that there was nothing to do."""


async def note_trial(tx: Transaction, plan: Plan, alert: AlertFacts | None, now: datetime) -> None:
    """Remember for which alerts a plan's run is made."""
    by_hand = plan.decided_by.reasoner == "human"
    names = [BY_HAND] if by_hand else sorted(set(alert.names if alert else ()))[:MOST_NAMES]
    common = {
        "run": workflow_name(plan),
        "cluster": plan.target.cluster,
        "namespace": plan.target.namespace,
        "kind": plan.target.kind,
        "at": stamp(now),
        "undoes": plan.undoes,
    }
    if names:
        await tx.execute(insert(trials), [{**common, "alert": name} for name in names])


async def experience_of(
    tx: Transaction, incident: Incident, alerts: Sequence[Alert], now: datetime
) -> Experience | None:
    """Read what is known of runs for the incident's firing alerts; None where none fires."""
    mine = [alert for alert in alerts if alert.status is AlertStatus.FIRING]
    names = list(dict.fromkeys(alert.name for alert in mine))[:MOST_NAMES]
    if not names:
        return None
    # Nodes are in no namespace, whatever the alert's labels say.
    places = {"", *(alert.labels.get(key, "") for alert in mine for key in _NAMESPACES)}
    rows = (await tx.execute(_query(incident, names, sorted(places), now))).all()
    found = [_trial(row, now) for row in rows]
    near = [trial for trial in found if trial.namespace in places][:NEAR_KEPT]
    return Experience(alerts=names, near=near, kinds=tallied(fair(found)))


def _query(incident: Incident, names: list[str], places: list[str], now: datetime) -> Select[Any]:
    """Ask for the newest runs of each alert, in the cluster and near by, and what followed.

    The incident's own are left out: the agents know them as its earlier attempts.
    """
    later = incidents.alias("later")
    undo, undo_run = trials.alias("undo"), runs.alias("undo_run")
    again: ScalarSelect[Any] = (
        select(later.c.opened_at)
        .where(
            later.c.cluster == incidents.c.cluster,
            later.c.subject == incidents.c.subject,
            later.c.opened_at > runs.c.ended_at,
            ~later.c.body.contains(_NOT_REAL, autoescape=True),
            exists().where(inbox.c.incident_id == later.c.id, or_(*map(_is_named, names))),
        )
        .order_by(later.c.opened_at)
        .limit(1)
        .correlate(incidents, runs)
        .scalar_subquery()
    )
    undone = exists().where(
        undo.c.undoes == runs.c.name, undo_run.c.name == undo.c.run, undo_run.c.created
    )
    picked = _picked(incident.cluster, names, places, now)
    return (
        select(
            runs,
            picked.c.kind,
            picked.c.by_hand,
            incidents.c.state,
            incidents.c.attempt.label("attempts"),
            incidents.c.changed_at,
            again.label("again_at"),
            undone.label("undone"),
        )
        .join(picked, picked.c.run == runs.c.name)
        .join(incidents, incidents.c.id == runs.c.incident_id)
        .where(
            runs.c.incident_id != incident.id,
            runs.c.created,
            ~runs.c.open,
            runs.c.outcome.is_not(None),
            runs.c.outcome != Outcome.REFUSED.value,
        )
        .order_by(runs.c.ended_at.desc(), runs.c.name)
    )


def _picked(cluster: str, names: list[str], places: list[str], now: datetime) -> Any:
    wide = max(_WIDE // len(names), _NEAR)
    asked = [(name, wide, trials.c.cluster == cluster) for name in (*names, BY_HAND)]
    asked += [
        (name, _NEAR, (trials.c.cluster == cluster) & (trials.c.namespace == place))
        for name in (*names, BY_HAND)
        for place in places
    ]
    return union(*(_newest(*one, since=stamp(now - HORIZON)) for one in asked)).subquery("picked")


def _newest(name: str, limit: int, where: ColumnElement[bool], *, since: str) -> Select[Any]:
    by_hand = (trials.c.alert == BY_HAND).label("by_hand")
    one = (
        select(trials.c.run, trials.c.kind, by_hand)
        .where(where, trials.c.alert == name, trials.c.at >= since, trials.c.undoes.is_(None))
        .order_by(trials.c.at.desc())
        .limit(limit)
        .subquery()
    )
    return select(one)


def _is_named(name: str) -> ColumnElement[bool]:
    """Tell whether an episode's alert bears a name, as `incidents.dump` writes it."""
    said = f'"alertname":{json.dumps(name, ensure_ascii=False)}'
    return inbox.c.alert.contains(said, autoescape=True)


def _trial(row: Row[Any], now: datetime) -> Trial:
    ended = moment(row.ended_at)
    last = row.attempts == row.attempt
    closed = row.state == State.CLOSED and last
    after = Aftermath(
        outcome=Outcome(row.outcome),
        ended_at=ended,
        closed_at=moment(row.changed_at) if closed else None,
        superseded=not last,
        again_at=moment(row.again_at) if row.again_at else None,
        undone=bool(row.undone),
    )
    return Trial(
        action=row.action.rpartition("-v")[0],
        kind=row.kind,
        namespace=row.namespace,
        target_uid=row.target_uid,
        owner_uid=row.owner_uid,
        at=ended,
        end=end_of(after, now),
        by_hand=bool(row.by_hand),
    )

"""For which alerts runs were made, those of before included, and indexes to find them by."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_INDEXES = {
    "trials_alert": ("trials", ["cluster", "alert", "at"]),
    "trials_place": ("trials", ["cluster", "alert", "namespace", "at"]),
    "trials_undoes": ("trials", ["undoes"]),
    "runs_incident": ("runs", ["incident_id", "attempt"]),
    "incidents_subject": ("incidents", ["cluster", "subject", "opened_at"]),
}
_MOST_NAMES = 5
_AT_ONCE = 500


def upgrade() -> None:
    """Make them, and fill the table from the plans and alerts that are there."""
    trials = op.create_table(
        "trials",
        sa.Column("run", sa.String(), primary_key=True),
        sa.Column("alert", sa.String(), primary_key=True),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("undoes", sa.String(), nullable=True),
    )
    for name, (table, columns) in _INDEXES.items():
        op.create_index(name, table, columns, if_not_exists=True)
    connection = op.get_bind()
    found = connection.execute(
        sa.text(
            "SELECT runs.name, runs.incident_id, runs.intended_at, plans.body "
            "FROM runs JOIN plans ON plans.digest = runs.plan_digest"
        )
    ).all()
    for begin in range(0, len(found), _AT_ONCE):
        made = [row for run in found[begin : begin + _AT_ONCE] for row in _rows(connection, run)]
        if made:
            op.bulk_insert(trials, made)


def _rows(connection: sa.Connection, run: sa.Row[tuple[str, ...]]) -> list[dict[str, str | None]]:
    plan = json.loads(run.body)
    target = plan["target"]
    common: dict[str, str | None] = {
        "run": run.name,
        "cluster": target["cluster"],
        "namespace": target["namespace"],
        "kind": target["kind"],
        "at": run.intended_at,
        "undoes": plan.get("undoes"),
    }
    if plan["decided_by"]["reasoner"] == "human":
        return [{**common, "alert": ""}]
    alerts = connection.execute(
        sa.text("SELECT alert FROM inbox WHERE incident_id = :id ORDER BY id"),
        {"id": run.incident_id},
    ).scalars()
    labels = [json.loads(alert).get("labels") or {} for alert in alerts]
    names = list(dict.fromkeys(str(one.get("alertname") or "") for one in labels))
    return [{**common, "alert": name} for name in names if name][:_MOST_NAMES]

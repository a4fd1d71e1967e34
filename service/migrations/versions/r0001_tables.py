"""The tables of the first release, and the rows that transactions lock."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _string(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=null)


def _text(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=null, server_default=default)


def _number(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=null, server_default=default)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _serial() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True)


def _index(name: str, table: str, columns: list[str], where: str = "") -> None:
    """Make an index; a partial one is unique."""
    part: dict[str, Any] = {}
    if where:
        part = {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
    op.create_index(name, table, columns, unique=bool(where), **part)


def upgrade() -> None:
    """Make them."""
    _alerts()
    _incidents()
    _work()
    _runs()
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        *(_string("at"), _string("event"), _string("incident_id", null=True), _string("actor")),
        *(_text("body"), _string("previous"), _string("hash")),
    )
    _index("audit_incident", "audit", ["incident_id", "seq"])


def _alerts() -> None:
    op.create_table(
        "inbox",
        _serial(),
        *(_string("cluster"), _string("fingerprint"), _string("starts_at"), _string("status")),
        *(_string("incident_id", null=True), _flag("open"), _string("began_at")),
        *(_string("ended_at", null=True), _string("seen_at"), _number("repeats", default="0")),
        _number("missing_listings", default="0"),
        sa.Column("position", sa.String(), nullable=False, server_default=""),
        _text("alert"),
    )
    _index("inbox_open", "inbox", ["cluster", "fingerprint"], "open")
    _index("inbox_incident", "inbox", ["incident_id"])
    _index("inbox_fingerprint", "inbox", ["fingerprint", "began_at"])
    op.create_table(
        "dead_letters",
        _serial(),
        *(_number("stream_seq", null=True), _text("reason"), _text("payload"), _string("at")),
    )


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(), primary_key=True),
        *(_string("cluster"), _string("subject"), _string("state"), _number("attempt")),
        *(_string("opened_at"), _string("changed_at"), _string("deadline_at", null=True)),
        *(_string("due_at"), _string("target_uid", null=True), _text("body")),
    )
    _index("incidents_due", "incidents", ["state", "due_at"])
    _index("incidents_one_open_subject", "incidents", ["cluster", "subject"], "state != 'closed'")
    op.create_table(
        "evidence",
        *(_string("incident_id"), _string("id"), _number("attempt"), _string("asked_at")),
        _text("body"),
        sa.PrimaryKeyConstraint("incident_id", "id"),
    )
    op.create_table(
        "proposals",
        *(_string("incident_id"), _number("attempt"), _string("at"), _text("decision")),
        *(_text("notes", default=""), _text("facts", null=True), _text("judgement", null=True)),
        sa.PrimaryKeyConstraint("incident_id", "attempt"),
    )


def _work() -> None:
    op.create_table(
        "leases",
        sa.Column("resource", sa.String(), primary_key=True),
        *(_string("holder"), _number("token"), _string("expires_at")),
    )
    locks = op.create_table(
        "locks", sa.Column("name", sa.String(), primary_key=True), _number("counter")
    )
    op.bulk_insert(locks, [{"name": n, "counter": 0} for n in ("audit", "budget", "incidents")])
    op.create_table(
        "freezes",
        sa.Column("target_uid", sa.String(), primary_key=True),
        *(_string("incident_id"), _text("target"), _text("reason"), _string("at")),
    )
    op.create_table(
        "breakers",
        sa.Column("scope", sa.String(), primary_key=True),
        *(_text("reason"), _string("at")),
    )


def _runs() -> None:
    op.create_table(
        "plans",
        sa.Column("digest", sa.String(), primary_key=True),
        *(_string("incident_id"), _number("attempt"), _string("at"), _text("body")),
        sa.UniqueConstraint("incident_id", "attempt"),
    )
    op.create_table(
        "approvals",
        _serial(),
        *(_string("incident_id"), _string("plan_digest"), _string("verdict"), _string("by")),
        *(_text("reason"), _string("at"), _string("expires_at")),
        sa.UniqueConstraint("plan_digest"),
    )
    op.create_table(
        "runs",
        sa.Column("name", sa.String(), primary_key=True),
        *(_string("incident_id"), _number("attempt"), _string("plan_digest"), _string("action")),
        *(_string("cluster"), _string("namespace"), _string("target_uid"), _string("owner_uid")),
        *(_string("intended_at"), _string("not_after"), _string("deadline_at"), _flag("open")),
        *(_flag("created"), _string("ended_at", null=True), _string("outcome", null=True)),
        _text("steps", default="[]"),
        sa.UniqueConstraint("plan_digest"),
    )
    _index("runs_one_open_target", "runs", ["target_uid"], "open")
    _index("runs_namespace", "runs", ["cluster", "namespace", "intended_at"])

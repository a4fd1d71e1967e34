"""More than one person decides on a plan, and who breaks the glass is reviewed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ONCE = "approvals_plan_digest_by_verdict_key"


def upgrade() -> None:
    """One row for each person and verdict; the reviews."""
    if op.get_bind().dialect.name == "postgresql":
        op.add_column(
            "approvals", sa.Column("teams", sa.Text(), nullable=False, server_default="[]")
        )
        op.drop_constraint("approvals_plan_digest_key", "approvals", type_="unique")
        op.create_unique_constraint(_ONCE, "approvals", ["plan_digest", "by", "verdict"])
    else:
        _made_anew()
    op.create_table(
        "reviews",
        sa.Column("plan_digest", sa.String(), primary_key=True),
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("paged_at", sa.String(), nullable=True),
        sa.Column("closed_by", sa.String(), nullable=True),
        sa.Column("closed_reason", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.String(), nullable=True),
    )


def _made_anew() -> None:
    """SQLite cannot drop a constraint."""
    op.rename_table("approvals", "approvals_old")
    op.create_table(
        "approvals",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("plan_digest", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("teams", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("expires_at", sa.String(), nullable=False),
        sa.UniqueConstraint("plan_digest", "by", "verdict"),
    )
    op.execute(
        'INSERT INTO approvals (id, incident_id, plan_digest, verdict, "by", reason, at, '
        'expires_at) SELECT id, incident_id, plan_digest, verdict, "by", reason, at, expires_at '
        "FROM approvals_old"
    )
    op.drop_table("approvals_old")

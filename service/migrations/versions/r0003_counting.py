"""What is counted for the gate: runs by their indexes, and since when a breaker counts anew."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_INDEXES = {
    "runs_cluster": ["cluster", "intended_at"],
    "runs_ended": ["cluster", "namespace", "ended_at"],
    "runs_owner": ["owner_uid", "intended_at"],
    "runs_target": ["target_uid", "intended_at"],
}


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "breaker_resets",
        sa.Column("scope", sa.String(), primary_key=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "runs", columns, if_not_exists=True)
    op.create_index(
        "runs_open",
        "runs",
        ["cluster"],
        if_not_exists=True,
        sqlite_where=sa.text("open"),
        postgresql_where=sa.text("open"),
    )

"""People's pauses, and how far the events out have been told."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "pauses",
        sa.Column("scope", sa.String(), primary_key=True),
        sa.Column("by", sa.String(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("until", sa.String(), nullable=False),
    )
    op.create_table(
        "event_positions",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.String(), nullable=False),
    )

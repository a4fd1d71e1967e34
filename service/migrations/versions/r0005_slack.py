"""Cards in chat, and the signed requests that must not count twice."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "cards",
        sa.Column("incident_id", sa.String(), primary_key=True),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("ts", sa.String(), nullable=True),
        sa.Column("posting_at", sa.String(), nullable=True),
        sa.Column("shown", sa.String(), nullable=False, server_default=""),
        sa.Column("told", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("over", sa.Boolean(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False, server_default=""),
        sa.Column("held_until", sa.String(), nullable=False, server_default=""),
    )
    op.create_table(
        "slack_requests",
        sa.Column("signature", sa.String(), primary_key=True),
        sa.Column("at", sa.String(), nullable=False),
    )

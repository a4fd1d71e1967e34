"""When a breaker was last reset, so that what happened before does not trip it again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "breaker_resets",
        sa.Column("scope", sa.String(), primary_key=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
    )

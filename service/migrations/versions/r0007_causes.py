"""What incidents follow from, and the lock under which the first of them is found."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make them."""
    op.add_column("incidents", sa.Column("cause", sa.String(), nullable=True))
    op.create_index("incidents_cause", "incidents", ["cluster", "cause"])
    locks = sa.table("locks", sa.column("name"), sa.column("counter"))
    op.bulk_insert(locks, [{"name": "causes", "counter": 0}])

"""Alembic's entry: upgrades over the connection that `schema.upgrade` holds, in its transaction."""

from alembic import context

from tiphys.service.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

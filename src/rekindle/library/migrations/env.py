"""Runs the migrations on the connection that `rekindle.library.index` hands over. Read by Alembic, never imported."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="rekindle_version")
with context.begin_transaction():
    context.run_migrations()

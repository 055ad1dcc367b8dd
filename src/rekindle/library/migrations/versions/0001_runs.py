"""The first index: one table, one library per database, SQLite alone."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table; a file of before there were migrations has it already. PostgreSQL never had it."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("env_id", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("manifest", sa.Text),
        sa.Column("policy", sa.Text),
        sa.Column("problem", sa.Text),
        if_not_exists=True,
    )

"""Several libraries in one database, lineage as a table, and columns for what recall and listings ask.

What it knew is not carried over: the next question reads the run folders, which are the truth.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """New tables beside the old one, then the old one goes."""
    op.create_table(
        "rekindle_runs",
        sa.Column("library", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("env_id", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("created", sa.Text),
        sa.Column("manifest", sa.Text),
        sa.Column("agent", sa.Text),
        sa.Column("spec", sa.Text),
        sa.Column("weights", sa.Text),
        sa.Column("goal", sa.Text),
        sa.Column("foundation", sa.Text),
        sa.Column("card", sa.Text),
        sa.Column("policy", sa.Text),
        sa.Column("problem", sa.Text),
        if_not_exists=True,
    )
    for column in ("kind", "env_id", "name", "spec"):
        op.create_index(f"rekindle_runs_{column}", "rekindle_runs", ["library", column], if_not_exists=True)
    op.create_table(
        "rekindle_kin",
        sa.Column("library", sa.Text, primary_key=True),
        sa.Column("child", sa.Text, primary_key=True),
        sa.Column("parent", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        if_not_exists=True,
    )
    op.create_index("rekindle_kin_parent", "rekindle_kin", ["library", "parent"], if_not_exists=True)
    if op.get_bind().dialect.name == "sqlite":  # a file of ours alone; on a server a table of that name is a stranger's
        op.drop_table("runs", if_exists=True)

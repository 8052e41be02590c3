"""Drafts know where they were left, and all of them have ids."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the step; a VM that does not know it can go on. Drafts of revision 0001 get an id."""
    comment = "where its owner left it"
    op.add_column("drafts", sa.Column("step", sa.String(16), nullable=False, server_default="", comment=comment))
    drafts = sa.table("drafts", sa.column("owner", sa.String), sa.column("id", sa.String))
    connection = op.get_bind()
    for (owner,) in connection.execute(sa.select(drafts.c.owner).where(drafts.c.id == "")).all():
        values = {"id": secrets.token_urlsafe(12)}
        connection.execute(drafts.update().where(drafts.c.owner == owner).values(values))


def downgrade() -> None:
    """Remove the column again."""
    op.drop_column("drafts", "step")

"""Drafts have ids; records know their draft, their catalogue and when their owner was last here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns with defaults: a VM that does not know them can go on."""
    op.add_column("drafts", _text("id", 40, "chosen by whoever began it"))
    op.add_column("records", _text("draft", 40, "form that it was last saved from"))
    op.add_column("records", _text("catalogue", 16, "that the scores are by"))
    comment = "when the owner's cookie was last made"
    op.add_column("records", sa.Column("seen", sa.BigInteger, nullable=False, server_default="0", comment=comment))
    records = sa.table("records", sa.column("seen", sa.BigInteger), sa.column("updated", sa.BigInteger))
    op.execute(records.update().values(seen=records.c.updated))


def _text(name: str, length: int, comment: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default="", comment=comment)


def downgrade() -> None:
    """Remove the columns again."""
    for table, column in (("records", "seen"), ("records", "catalogue"), ("records", "draft"), ("drafts", "id")):
        op.drop_column(table, column)

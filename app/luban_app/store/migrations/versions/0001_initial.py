"""The first tables: records, drafts and the secret."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_by_code_point = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "records",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("name_key", _by_code_point, nullable=False, comment="the name as it is sorted"),
        sa.Column("search_key", sa.Text, nullable=False, comment="what a search looks through"),
        sa.Column("answers", sa.Text, nullable=False, comment="JSON object: indicator id -> option id"),
        sa.Column("outside", sa.Float),
        sa.Column("building", sa.Float),
        sa.Column("inside", sa.Float),
        sa.Column("total", sa.Float),
        sa.Column("created", sa.BigInteger, nullable=False, comment="microseconds since 1970 in UTC"),
        sa.Column("updated", sa.BigInteger, nullable=False, comment="microseconds since 1970 in UTC"),
    )
    op.create_index("records_of_owner", "records", ["owner", "updated"])
    op.create_table(
        "drafts",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("record", sa.String(40), nullable=False, comment="record that is edited; empty: a new one"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("answers", sa.Text, nullable=False, comment="JSON object: indicator id -> option id"),
        sa.Column("updated", sa.BigInteger, nullable=False, comment="microseconds since 1970 in UTC"),
    )
    op.create_index("drafts_by_age", "drafts", ["updated"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop all tables, and with them all data."""
    for name in ("secrets", "drafts", "records"):
        op.drop_table(name)

"""Tables of the database. What changes here needs a migration in `migrations/versions` and a new HEAD."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, MetaData, String, Table, Text

HEAD = "0003"
"""The newest revision in `migrations/versions`; revisions are numbers, so that older and newer can be told apart."""

ID_LENGTH = 40
CATALOGUE_LENGTH = 16
STEP_LENGTH = 16
OWNER_LENGTH = 64

metadata = MetaData()

# The collation of names is the same on both kinds of database, so that lists have the same order: by code points.
_by_code_point = Text().with_variant(Text(collation="C"), "postgresql")

records = Table(
    "records",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("owner", String(OWNER_LENGTH), nullable=False),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("name_key", _by_code_point, nullable=False, comment="the name as it is sorted"),
    Column("search_key", Text, nullable=False, comment="what a search looks through"),
    Column("answers", Text, nullable=False, comment="JSON object: indicator id -> option id"),
    Column("outside", Float),
    Column("building", Float),
    Column("inside", Float),
    Column("total", Float),
    Column("created", BigInteger, nullable=False, comment="microseconds since 1970 in UTC"),
    Column("updated", BigInteger, nullable=False, comment="microseconds since 1970 in UTC"),
    Column("draft", String(ID_LENGTH), nullable=False, server_default="", comment="form that it was last saved from"),
    Column("seen", BigInteger, nullable=False, server_default="0", comment="when the owner's cookie was last made"),
    Column("catalogue", String(CATALOGUE_LENGTH), nullable=False, server_default="", comment="that the scores are by"),
)
Index("records_of_owner", records.c.owner, records.c.updated)

drafts = Table(
    "drafts",
    metadata,
    Column("owner", String(OWNER_LENGTH), primary_key=True),
    Column("record", String(ID_LENGTH), nullable=False, comment="record that is edited; empty: a new one"),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("answers", Text, nullable=False, comment="JSON object: indicator id -> option id"),
    Column("updated", BigInteger, nullable=False, comment="microseconds since 1970 in UTC"),
    Column("id", String(ID_LENGTH), nullable=False, server_default="", comment="chosen by whoever began it"),
    Column("step", String(STEP_LENGTH), nullable=False, server_default="", comment="where its owner left it"),
)
Index("drafts_by_age", drafts.c.updated)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(ID_LENGTH), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

versions = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""alembic's own table, named here so that a database that is up to date need not load alembic."""

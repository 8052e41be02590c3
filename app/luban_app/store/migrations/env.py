"""What alembic runs for each upgrade: always on a connection that is already in a transaction and holds the lock."""

from __future__ import annotations

from alembic import context

from luban_app.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

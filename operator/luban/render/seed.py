"""cloud-init's NoCloud documents. https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html"""

from __future__ import annotations

import json

SEED_LABEL = "cidata"
"""File system label by which cloud-init finds the seed."""


def meta_data(uuid: str, name: str) -> str:
    """Instance id and host name, a line each, so that a guest without a YAML parser can read them too."""
    return f"instance-id: {json.dumps(uuid)}\nlocal-hostname: {json.dumps(name)}\n"


def seed_documents(uuid: str, name: str, user_data: str) -> dict[str, bytes]:
    """Files of the seed by name; the user's document goes in as it is."""
    return {"meta-data": meta_data(uuid, name).encode(), "user-data": user_data.encode()}

"""The ConfigMap of a balancer: written from members and settings, read back to see what is published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from luban.core.model import Member, Published
from luban.render.httpd import BalancerSettings, config_map_data, parse_balancer_json

SETTINGS_KEY = "settings-version"
DOCUMENT_KEY = "balancer.json"


def settings_version(settings: BalancerSettings) -> str:
    """A short hash of everything but the members."""
    text = json.dumps(asdict(settings), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def publication(settings: BalancerSettings, members: Sequence[Member]) -> dict[str, str]:
    """Data of the ConfigMap."""
    return {**config_map_data(settings, members), SETTINGS_KEY: settings_version(settings)}


def published_of(data: Mapping[str, str] | None) -> Published | None:
    """What a ConfigMap says; None: it is absent or unreadable, and so to be written anew."""
    if data is None or DOCUMENT_KEY not in data:
        return None
    try:
        content = parse_balancer_json(data[DOCUMENT_KEY])
    except ValueError:
        return None
    return Published(data.get(SETTINGS_KEY, ""), content.version, tuple(content.members))

"""What an agent must know after a restart: written to its state folder before it acts on it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from luban.adapters.apache_httpd.process import folder_unusable
from luban.balancer_agent.slots import Slot, Table
from luban.render.balancer import (
    BalancerDocument,
    BalancerSettings,
    encode_document,
    member_from,
    parse_balancer_json,
    settings_from,
)

log = structlog.get_logger(__name__)

STATE_FILE = "state.json"
SECRET_FILE = "secret"  # noqa: S105 (the name of a file)


@dataclass(frozen=True)
class Skeleton:
    """What of a configuration only a reload can change."""

    settings: BalancerSettings
    ports: tuple[int, ...]
    """Port of each slot."""


@dataclass(frozen=True)
class AgentMemory:
    """Everything that the agent's next decision depends on and httpd cannot tell."""

    document: BalancerDocument | None = None
    """What is wanted."""
    in_force: Skeleton | None = None
    """What httpd has loaded; None: it never ran."""
    table: Table = ()


class Store:
    """The memory and its file: what is changed here is on disk before anything follows from it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE_FILE
        self.memory = _load(self._path)

    @property
    def table(self) -> Table:
        """The slots as they should be."""
        return self.memory.table

    def update(self, memory: AgentMemory) -> None:
        """Remember something else. Raises FolderUnusable; the memory is then what it was."""
        if memory != self.memory:
            _replace(self._path, json.dumps(_encode(memory)))
            self.memory = memory


def _load(path: Path) -> AgentMemory:
    """The memory of the agent that ran here before; an empty one if there was none, or it cannot be read."""
    try:
        data = json.loads(path.read_text())
        return AgentMemory(
            document=parse_balancer_json(data["document"]) if data["document"] else None,
            in_force=_skeleton(data["inForce"]) if data["inForce"] else None,
            table=tuple(_slot(index, entry) for index, entry in enumerate(data["table"], start=1)),
        )
    except FileNotFoundError:
        return AgentMemory()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("state cannot be read, starting without", file=str(path), error=repr(error))
        return AgentMemory()


def _encode(memory: AgentMemory) -> dict[str, Any]:
    return {
        "document": encode_document(memory.document) if memory.document else None,
        "inForce": asdict(memory.in_force) if memory.in_force else None,
        "table": [_entry(slot) for slot in memory.table],
    }


def secret(folder: Path) -> str:
    """The secret between agent and httpd, made at the first start. Hex digits."""
    path = folder / SECRET_FILE
    if not path.exists():
        _replace(path, secrets.token_hex(16))
    return path.read_text()


def _replace(path: Path, text: str) -> None:
    """Write a file in one step; only we can read it. Raises FolderUnusable, and the file is as it was."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(path)
    except OSError as error:
        raise folder_unusable(path, error) from error


def _skeleton(data: Mapping[str, Any]) -> Skeleton:
    return Skeleton(settings_from(data["settings"]), tuple(data["ports"]))


def _entry(slot: Slot) -> dict[str, Any]:
    entry = asdict(slot)
    del entry["index"]
    return entry


def _slot(index: int, data: Mapping[str, Any]) -> Slot:
    member = member_from(data["member"]) if data["member"] else None
    return Slot(**{**data, "index": index, "member": member})

"""Where an agent learns what is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

DOCUMENT_KEY = "balancer.json"


class Source(Protocol):
    """The data of the balancer's ConfigMap."""

    def changes(self) -> AsyncIterator[Mapping[str, str] | None]:
        """The data now and after each change, None while there is none. Never ends, never raises."""


class FolderSource:
    """A folder with a file `balancer.json`, looked at again and again: no API server is needed."""

    def __init__(self, folder: Path, seconds: float = 0.1) -> None:
        self._file = folder / DOCUMENT_KEY
        self._seconds = seconds

    async def changes(self) -> AsyncIterator[Mapping[str, str] | None]:
        """The file's text now and after each change. Write it in one step (rename), it may be read at any moment."""
        last: str | None = ""
        while True:
            text = self._read()
            if text != last:
                yield None if text is None else {DOCUMENT_KEY: text}
                last = text
            await asyncio.sleep(self._seconds)

    def _read(self) -> str | None:
        try:
            # What is no UTF-8 is no JSON of ours either; the reader of the text says so.
            return self._file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

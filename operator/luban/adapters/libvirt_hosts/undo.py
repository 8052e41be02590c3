"""Taking back what a failed job made."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import libvirt
import structlog

from luban.adapters.libvirt_hosts.session import AbandonedError

log = structlog.get_logger(__name__)


class Undo:
    """Context of a job: if it raises, what it has made is unmade, the latest first.

    Not if the job was abandoned: the same things may be in use by then, through a second attempt that succeeded.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """Something was made; `step` unmakes it."""
        self._steps.append((what, step))

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, AbandonedError):
            return
        for what, step in reversed(self._steps):
            self._try(what, step)

    def _try(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except libvirt.libvirtError as error:
            log.warning("left behind after a failure", host=self._host, what=what, error=str(error))

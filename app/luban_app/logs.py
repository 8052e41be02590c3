"""Structured logs: one JSON object a line on standard output, each with the VM's name."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Logger = structlog.stdlib.BoundLogger


def _add_vm(vm: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["vm"] = vm
        return event

    return add


def _drop_colour(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """uvicorn sends each message twice, once with terminal colours."""
    event.pop("color_message", None)
    return event


def configure(vm: str, level: str = "info") -> None:
    """Send structlog's and the standard library's records (uvicorn's among them) to one JSON stream.

    `level` is a name that `logging` knows, in any case; ValueError otherwise.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_vm(vm),
        _drop_colour,
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
            foreign_pre_chain=shared,
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def get(name: str) -> Logger:
    """The logger called `name`."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger

"""What VMs use: each libvirt daemon is asked at its own pace, behind everybody's back, and two looks make a rate.

Nobody waits for an answer: a look gives what is known, and begins a question if one is due. The first look gives no
figure, nor does one after a new start, after a gap, or that is too old.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field

import structlog

from luban.core.figures import Figures
from luban.errors import LubanError
from luban.ports import HostRef, Hypervisor, Usage

log = structlog.get_logger(__name__)

LATE_SECONDS = 15.0
"""An answer may come so much later than it should."""
MEMORY_SECONDS = 30.0
"""A guest tells its memory every ten seconds (render.domain_xml): one that has not for so long may hang."""
FORGET_SECONDS = 300.0
"""A host that nobody asked about for so long is forgotten."""
FIRST = Figures(since=math.inf)
"""What one look alone tells."""


@dataclass(frozen=True)
class _Known:
    """One domain after a look."""

    usage: Usage
    asked: float
    """When it was asked, on our clock."""
    told: float | None = None
    """When the guest was first seen to have told what it now tells; None: it told it before the first look."""
    figures: Figures = FIRST
    """What is known of it."""

    def after(self, usage: Usage, asked: float, longest: float) -> _Known:
        """After another look, which may be `longest` seconds later at most, or it is a first one."""
        before = self.usage
        if usage.run != before.run or asked - self.asked > longest:
            return _Known(usage, asked)
        span = usage.at - before.at
        cpu = _rate(before.cpu_seconds, usage.cpu_seconds, span)
        told = asked if _anew(before, usage) else self.told
        figures = Figures(
            cpu=100 * cpu / usage.vcpus if cpu is not None and usage.vcpus else None,
            memory=_memory(usage, told, asked),
            network=_rate(before.network_bytes, usage.network_bytes, span),
            since=self.asked,
        )
        return _Known(usage, asked, told, figures)


def _memory(usage: Usage, told: float | None, asked: float) -> float | None:
    """Percent in use; None: not known, or told too long ago."""
    memory = usage.memory
    if memory is None or told is None or asked - told > MEMORY_SECONDS:
        return None
    return 100 * memory.used / memory.maximum


def _anew(before: Usage, now: Usage) -> bool:
    """Whether the guest has told what memory it uses between two looks."""
    return now.memory is not None and before.memory is not None and now.memory.told != before.memory.told


def _rate(before: float | None, now: float | None, span: float) -> float | None:
    """Of a counter, per second; None: not known, or it went back, for it began anew."""
    if before is None or now is None or now < before or span <= 0:
        return None
    return (now - before) / span


@dataclass
class _Host:
    known: dict[str, _Known] = field(default_factory=dict)
    """By uuid."""
    asking: asyncio.Task[None] | None = None
    asked: float = -math.inf
    answered: float = -math.inf
    """When it was asked what it answered last."""
    looked: float = 0.0
    failing: bool = False


class UsageSenses:
    """All hosts that any cluster looks at."""

    def __init__(self, hypervisor: Hypervisor, monotonic: Callable[[], float]) -> None:
        self._hypervisor, self._monotonic = hypervisor, monotonic
        self._hosts: dict[HostRef, _Host] = {}

    def look(self, hosts: Iterable[HostRef], uuids: Set[str], period: float) -> Mapping[str, Figures]:
        """What is known of these domains on some hosts, by uuid. Hosts are asked every `period` seconds at least."""
        now = self._monotonic()
        found: dict[str, Figures] = {}
        for host in hosts:
            known = self._hosts.setdefault(host, _Host())
            known.looked = now
            self._ask_if_due(host, known, period, now)
            if now - known.answered <= _longest(period):
                found |= {uuid: known.known[uuid].figures for uuid in known.known.keys() & uuids}
        self._forget(now)
        return found

    def close(self) -> None:
        """Ask nobody any more."""
        hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            if host.asking is not None:
                host.asking.cancel()

    def _forget(self, now: float) -> None:
        for host, known in list(self._hosts.items()):
            if known.asking is None and now - known.looked > FORGET_SECONDS:
                del self._hosts[host]

    def _ask_if_due(self, host: HostRef, known: _Host, period: float, now: float) -> None:
        if known.asking is not None or now - known.asked < period:
            return
        known.asked = now
        known.asking = asyncio.ensure_future(self._ask(host, known, _longest(period)))

    async def _ask(self, host: HostRef, known: _Host, longest: float) -> None:
        asked = known.asked
        try:
            found = await self._hypervisor.usage(host)
            known.known = {uuid: _next(known.known.get(uuid), it, asked, longest) for uuid, it in found.items()}
            known.answered, known.failing = asked, False
        except LubanError as error:
            if not known.failing:
                log.warning("what VMs use is not known", host=host.name, why=error.message)
            known.failing = True
        except Exception:  # Nobody waits for this: it must not end in silence.
            log.exception("unexpected error of a host", host=host.name)
        finally:
            known.asking = None


def _next(before: _Known | None, usage: Usage, asked: float, longest: float) -> _Known:
    return _Known(usage, asked) if before is None else before.after(usage, asked, longest)


def _longest(period: float) -> float:
    """Figures are so old at most, and looks so far apart."""
    return 2 * period + LATE_SECONDS

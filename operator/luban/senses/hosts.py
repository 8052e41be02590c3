"""The hosts: each libvirt daemon is asked once, whichever clusters want to know, and what it said is kept with its age.

A look gives what is known. It asks first if that is too old or something happened on the host since: an event, or an
action of ours. It waits for a host that answers slowly only once, and a little.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import structlog

from luban.core.model import ClusterRef, DomainRecord, HostObservation
from luban.errors import LubanError, without_host
from luban.ports import HostRef, Hypervisor, Inventory, MarkedDomain
from luban.senses.same_daemons import SameDaemons
from luban.senses.steady import SteadyWords

log = structlog.get_logger(__name__)

FRESH_SECONDS = 4.0
"""What a host said so long ago still holds, if nothing has happened since; calm clusters look every five seconds."""
HASTY_SECONDS = 0.5
"""The same while somebody waits for something there, and for a host that could not be asked."""
RETRY_SECONDS = 1.0
"""A host that could not be asked is asked again by itself so long after, until it answers."""
PATIENCE_SECONDS = 1.0
"""A look waits so long for an answer; one that takes longer is waited for by nobody."""
MEMORY_SECONDS = 5.0
"""So long a host that has not answered yet counts as it was seen last: libvirtd holds back its answers for a second or
two while it destroys a domain. After that it is unreachable."""

DOUBT_SECONDS = 1.0
"""That all domains are gone must have been said for so long, if nothing explains it."""
DOUBTED = -1
"""Turn of a picture that is asked for anew by the next look, whatever happens."""

NOTHING = Inventory()

Wake = Callable[[str], None]
"""Told the uuid of a domain to which something happened; empty: the connection was lost."""


@dataclass(frozen=True)
class Picture:
    """What a host said."""

    at: float
    """When it was asked, in seconds of a clock that nobody sets."""
    turn: int
    """How often something had happened on the host before it was asked."""
    contents: Inventory = NOTHING
    """What there is, of every cluster."""
    error: str = ""
    """Why it said nothing; empty: it answered."""

    def of(self, cluster: ClusterRef, adopted: Collection[str]) -> dict[str, DomainRecord]:
        """Domains of a cluster, and those of its adopted VMs, which bear the mark of another one of its name."""
        namesakes = self._by_name.get((cluster.namespace, cluster.name), {})
        return {uuid: it.record for uuid, it in namesakes.items() if it.owner.covers(cluster) or uuid in adopted}

    @cached_property
    def _by_name(self) -> Mapping[tuple[str, str], Mapping[str, MarkedDomain]]:
        """The domains by namespace and name of their cluster: hundreds of clusters may look at one picture."""
        found: defaultdict[tuple[str, str], dict[str, MarkedDomain]] = defaultdict(dict)
        for uuid, it in self.contents.domains.items():
            found[it.owner.namespace, it.owner.name][uuid] = it
        return found


class HostSense:
    """One host."""

    def __init__(
        self, host: HostRef, hypervisor: Hypervisor, monotonic: Callable[[], float], same: SameDaemons
    ) -> None:
        self._host, self._hypervisor, self._monotonic, self._same = host, hypervisor, monotonic, same
        self._followers: dict[object, Wake] = {}
        self._picture: Picture | None = None
        self._asking: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._unanswered: float | None = None
        """Since when a question is without an answer; None: none is."""
        self._turn = 0
        self._explained = 0
        """How often something happened after which domains may be gone: not that a connection was lost."""
        self._known: Mapping[str, MarkedDomain] = {}
        """What was there when the host last told of anything, or was believed that there is nothing."""
        self._known_explained = 0
        self._vanished: float | None = None
        """Since when it says that there is nothing, which is not believed yet."""
        self._words = SteadyWords()
        self.contents = NOTHING
        """What was there when it answered last."""
        self._leave = hypervisor.watch(host, self._happened)

    def follow(self, key: object, wake: Wake) -> None:
        """Tell of what happens here."""
        self._followers[key] = wake

    def unfollow(self, key: object) -> bool:
        """Tell no more. Returns whether nobody is left."""
        self._followers.pop(key, None)
        return not self._followers

    def close(self) -> None:
        """Ask and hear no more."""
        self._leave()
        self._same.forget(self._host.uri)
        self._retry_no_more()
        if self._asking is not None:
            self._asking.cancel()

    def touch(self) -> None:
        """Something was done here: what is known is too old from now on."""
        self._turn += 1
        self._explained += 1

    async def look(self, cluster: ClusterRef, adopted: Collection[str], *, hasty: bool) -> HostObservation:
        """The host as one cluster sees it."""
        await self._bring_up_to_date(HASTY_SECONDS if hasty else FRESH_SECONDS)
        picture, name = self._picture, self._host.name
        if picture is not None and picture.error:
            return HostObservation(name, False, picture.error)
        if picture is None or self._silent_for() > MEMORY_SECONDS:
            return HostObservation(name, False, self._words.keep(name, "libvirt has not answered yet"))
        return HostObservation(name, True, domains=picture.of(cluster, adopted))

    async def _bring_up_to_date(self, oldest: float) -> None:
        # An answer that came after everybody had gone may be of any age: it counts, and is looked at like any other.
        self._collect()
        if self._asking is None:
            if self._holds(oldest):
                return
            self._asking = asyncio.ensure_future(self._ask())
        await asyncio.wait({self._asking}, timeout=max(0.0, PATIENCE_SECONDS - self._silent_for()))
        self._collect()

    def _collect(self) -> None:
        """Whether a question has been answered meanwhile. Raises what none of us can handle."""
        if self._asking is None or not self._asking.done():
            return
        ended, self._asking = self._asking, None
        if not ended.cancelled():
            ended.result()

    def _holds(self, oldest: float) -> bool:
        picture = self._picture
        if picture is None or picture.turn != self._turn:
            return False
        return self._monotonic() - picture.at <= (HASTY_SECONDS if picture.error else oldest)

    def _silent_for(self) -> float:
        """Seconds for which a question has been without an answer."""
        return 0.0 if self._unanswered is None else self._monotonic() - self._unanswered

    async def _ask(self) -> None:
        """Once more if something happened while it was asked: not for ever, as something may happen all the time."""
        self._retry_no_more()
        failed = self._picture is not None and bool(self._picture.error)
        for _ in range(2):
            self._picture = found = await self._answer()
            if not found.error:
                self.contents = found.contents
            if found.turn == self._turn:
                break
        if found.error:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._ask_again)
        elif failed:
            self._wake("")

    def _retry_no_more(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = None

    def _ask_again(self) -> None:
        """Those that wait for the host are woken when it is back, not only when they would have looked anyway."""
        self._collect()
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())

    async def _answer(self) -> Picture:
        """What the host says.

        That all is gone, and nothing that happened explains it, is believed only when it has been said for a while: a
        daemon that was just started may not have read its domains yet.
        """
        explained = self._explained
        heard = await self._question()
        if heard.error:
            self._same.forget(self._host.uri)
            return heard
        if heard.contents.domains or not self._known or explained != self._known_explained:
            self._known, self._known_explained, self._vanished = heard.contents.domains, explained, None
            return heard
        if self._vanished is None:
            self._vanished = heard.at
        if heard.at - self._vanished >= DOUBT_SECONDS:
            self._known, self._vanished = {}, None
            return heard
        return replace(heard, contents=replace(heard.contents, domains=self._known), turn=DOUBTED)

    async def _question(self) -> Picture:
        at, turn = self._monotonic(), self._turn
        if self._unanswered is None:
            self._unanswered = at
        picture = await self._said(at, turn)
        self._unanswered = None
        return picture

    async def _said(self, at: float, turn: int) -> Picture:
        name = self._host.name
        try:
            found = await self._hypervisor.inventory(self._host)
        except LubanError as error:
            return Picture(at, turn, error=self._words.choose(name, without_host(error.message, name)))
        except Exception as error:  # One host must not end the look at all others.
            log.exception("unexpected error of a host", host=name)
            return Picture(at, turn, error=self._words.choose(name, f"{type(error).__name__}: {error}"))
        self._words.over(name)
        self._same.take(self._host.uri, {(uuid, it.record.state) for uuid, it in found.domains.items()})
        return Picture(at, turn, found)

    def _happened(self, uuid: str) -> None:
        self._turn += 1
        self._explained += bool(uuid)
        self._wake(uuid)

    def _wake(self, uuid: str) -> None:
        for wake in list(self._followers.values()):
            wake(uuid)


class HostSenses:
    """All hosts that any cluster looks at."""

    def __init__(self, hypervisor: Hypervisor, monotonic: Callable[[], float]) -> None:
        self._hypervisor, self._monotonic = hypervisor, monotonic
        self._hosts: dict[HostRef, HostSense] = {}
        self.same = SameDaemons()
        """What turned out to be one."""

    def follow(self, key: object, hosts: Collection[HostRef], wake: Wake) -> None:
        """Look after exactly these hosts for `key`, and tell it of what happens there."""
        for gone in self._hosts.keys() - set(hosts):
            if self._hosts[gone].unfollow(key):
                self._hosts.pop(gone).close()
        for host in hosts:
            if host not in self._hosts:
                self._hosts[host] = HostSense(host, self._hypervisor, self._monotonic, self.same)
            self._hosts[host].follow(key, wake)

    def touch(self, host: HostRef) -> None:
        """Something was done on the host."""
        if host in self._hosts:
            self._hosts[host].touch()

    def contents(self, host: HostRef) -> Inventory:
        """What was there when a host that somebody follows answered last; nothing if it never did."""
        return self._hosts[host].contents if host in self._hosts else NOTHING

    def domains(self) -> frozenset[str]:
        """uuids of all our domains on the hosts that anybody follows, as each of them answered last."""
        return frozenset(uuid for host in self._hosts.values() for uuid in host.contents.domains)

    async def look(
        self, cluster: ClusterRef, adopted: Collection[str], hasty: Mapping[HostRef, bool]
    ) -> tuple[HostObservation, ...]:
        """Hosts that somebody follows, as a cluster sees them; `hasty`: whether it waits for something there."""
        looks = (self._hosts[host].look(cluster, adopted, hasty=it) for host, it in hasty.items())
        return tuple(await asyncio.gather(*looks))

"""Applying a plan: each VM's actions in their order, VMs beside each other, bounded per host, never twice at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from luban.api.cluster import LubanCluster
from luban.core.balancers import EnsureBalancers
from luban.core.model import (
    Action,
    CreateVM,
    EnsureDomain,
    Failure,
    Plan,
    PublishBalancer,
    RemoveBalancer,
)
from luban.errors import Conflict, LubanError, NotLeader, PermanentError, without_host
from luban.ports import HostRef, Ports
from luban.runtime.carry_out import Hands, failure_subject, host_of, subject
from luban.runtime.retries import Retries

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 2.0
"""A tick waits so long for its actions; slower ones go on in the background and are not started again."""
PER_HOST = 4
"""Actions of one cluster at the same time on one host."""
OBJECTS_AT_ONCE = 16
"""Writes of one cluster's LubanVMs at the same time: hundreds of them must not keep other clusters' waiting, nor what
its own balancer is told."""
LONGEST_FAULT = 500
"""Characters of the words about a fault."""


@dataclass(frozen=True)
class Outcome:
    """What became of an action."""

    action: Action
    body: Mapping[str, Any] | None
    """The LubanVM that it was about, as it was before."""
    failure: Failure | None = None
    """None: it was done."""


def fault(error: Exception) -> Failure:
    """What users are told of a fault of our own."""
    return Failure("InternalError", f"a fault of the operator; its log says more: {error!r}"[:LONGEST_FAULT], False)


@dataclass
class Applier:
    """Carries out plans of one cluster.

    `on_done` is called when a background action ended, to look again; `touched` with each host on which something was
    done.
    """

    ports: Ports
    on_done: Callable[[], None] = lambda: None
    touched: Callable[[HostRef], None] = lambda _host: None
    provision_failures: dict[str, Failure] = field(default_factory=dict)
    """By VM: why the last attempt to make its domain failed."""
    action_failures: dict[str, Failure] = field(default_factory=dict)
    """By subject: why the last of its actions failed, whatever it was."""
    balancers_written: str = ""
    """Version of what was made for the balancers last; empty: nothing yet."""
    retries: Retries = field(default_factory=Retries)
    """What fails again and again is tried ever more rarely."""
    _outcomes: list[Outcome] = field(default_factory=list)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _unseen: set[str] = field(default_factory=set)
    """LubanVMs that are being made, or were since the last look began: no plan knows of them yet."""
    _host_slots: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(PER_HOST))
    )
    _object_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OBJECTS_AT_ONCE))

    def looking(self) -> None:
        """A look begins: it will show all that was made before."""
        self._unseen &= self._running.keys()

    @property
    def being_made(self) -> frozenset[str]:
        """Names of LubanVMs that no plan knows of yet."""
        return frozenset(name.removeprefix("vm/") for name in self._unseen)

    def tried_now(self, plan: Plan) -> list[Action]:
        """What of a plan is done at once: the rest is under way already, or failed and waits."""
        now = self.ports.clock.monotonic()
        wanted = self._without_doubles(plan.actions)
        return [it for it in wanted if not self.retries.waits(failure_subject(it), it, now)]

    async def apply(self, cluster: LubanCluster, plan: Plan, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """Start what the plan asks for and is not under way, and wait a little for it."""
        self._forget_untried(plan)
        chains: dict[str, list[Action]] = defaultdict(list)
        for action in self._without_doubles(plan.actions):
            chains[subject(action)].append(action)
        hands = Hands(self.ports, cluster, bodies, self.touched, self.ports.agents)
        started = [self._start(hands, name, chain) for name, chain in chains.items()]
        waiting = {task for task in started if task is not None}
        if not waiting:
            return
        _, slow = await asyncio.wait(waiting, timeout=PATIENCE_SECONDS)
        for task in slow:
            task.add_done_callback(lambda _: self.on_done())

    def _without_doubles(self, actions: Iterable[Action]) -> Iterable[Action]:
        """A VM that is being made is in no observation yet: a plan would make another one in its place."""
        if not self._unseen:
            return actions
        return (action for action in actions if not isinstance(action, CreateVM))

    def take_outcomes(self) -> list[Outcome]:
        """What ended since this was asked the last time, in that order."""
        taken, self._outcomes = self._outcomes, []
        return taken

    async def close(self) -> None:
        """End what still runs; whatever was half done is taken up from observation."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget_others(self, names: Iterable[str]) -> None:
        """Drop what is remembered of VMs that are gone."""
        known = set(names)

        def gone(about: str) -> bool:
            return about.startswith("vm/") and about.removeprefix("vm/") not in known

        self.provision_failures = {name: failure for name, failure in self.provision_failures.items() if name in known}
        self.action_failures = {about: it for about, it in self.action_failures.items() if not gone(about)}
        self.retries.forget_subjects(gone)

    def _forget_untried(self, plan: Plan) -> None:
        """Drop failures of what nobody wants any more: what waits to be tried again is still in the plan.

        A VM's own failure stays as long as the VM: it also says what was tried in vain before.
        """
        wanted = {failure_subject(action) for action in plan.actions}

        def tried(about: str) -> bool:
            return about.startswith("vm/") or about in wanted

        self.action_failures = {about: it for about, it in self.action_failures.items() if tried(about)}
        self.retries.forget_untried(tried)

    def _start(self, hands: Hands, name: str, chain: list[Action]) -> asyncio.Task[None] | None:
        if name in self._running:
            return None
        task = asyncio.ensure_future(self._chain(hands, chain))
        self._running[name] = task
        if isinstance(chain[0], CreateVM):
            self._unseen.add(name)
        task.add_done_callback(lambda _: self._running.pop(name, None))
        return task

    async def _chain(self, hands: Hands, chain: list[Action]) -> None:
        """One subject's actions in order; the first that fails, or has to wait, ends it: the next tick plans anew."""
        for action in chain:
            if not self.retries.may_try(failure_subject(action), action, self.ports.clock.monotonic()):
                return
            try:
                failure = await self._try(hands, action)
            except (NotLeader, Conflict) as error:
                self._leave_off(hands, action, error)
                return
            body = hands.bodies.get(subject(action).removeprefix("vm/"))
            self._outcomes.append(Outcome(action, body, failure))
            if failure is not None:
                self._note_failure(action, failure)
                return
            self._note_success(action)

    def _leave_off(self, hands: Hands, action: Action, error: NotLeader | Conflict) -> None:
        """Nothing failed: it changed meanwhile, or is another's to do. The next tick sees what is there then."""
        log.info("action left off", cluster=str(hands.ref), subject=failure_subject(action), why=error.message)
        why = Failure(error.reason, error.message, permanent=False)
        self.retries.failed(failure_subject(action), action, why, self.ports.clock.monotonic())

    async def _try(self, hands: Hands, action: Action) -> Failure | None:
        """Carry one action out. A fault of our own is a failure like any other: nothing else stops for it."""
        what = {"cluster": str(hands.ref), "action": type(action).__name__, "subject": failure_subject(action)}
        try:
            async with self._slot(action):
                await hands.carry_out(action)
        except (NotLeader, Conflict):
            raise
        except LubanError as error:
            log.warning("action failed", **what, reason=error.reason, error=error.message)
            return Failure(error.reason, error.message, isinstance(error, PermanentError))
        except Exception as error:
            log.exception("action failed by a fault of the operator", **what)
            return fault(error)
        log.info("action done", **what, why=action.reason)
        return None

    def _slot(self, action: Action) -> AbstractAsyncContextManager[None]:
        """What an action waits for."""
        if host := host_of(action):
            return self._host_slots[host]
        return (
            nullcontext()
            if isinstance(action, PublishBalancer | RemoveBalancer | EnsureBalancers)
            else self._object_slots
        )

    def _note_success(self, action: Action) -> None:
        self.action_failures.pop(failure_subject(action), None)
        self.retries.succeeded(failure_subject(action), action)
        if isinstance(action, EnsureDomain):
            self.provision_failures.pop(action.vm.name, None)
        if isinstance(action, EnsureBalancers):
            self.balancers_written = action.version

    def _note_failure(self, action: Action, failure: Failure) -> None:
        self.action_failures[failure_subject(action)] = failure
        self.retries.failed(failure_subject(action), action, failure, self.ports.clock.monotonic())
        if isinstance(action, EnsureDomain):
            # It is told of the VM, together with its host.
            words = without_host(failure.message, action.vm.host)
            self.provision_failures[action.vm.name] = replace(failure, message=words)

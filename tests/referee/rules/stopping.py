"""Rules about how a VM ends: drained, in its own time, with nothing left, and not for ever on its way."""

from __future__ import annotations

import math

from tests.referee.bridge import (
    Action,
    DestroyDomain,
    Failure,
    PublishBalancer,
    ReleaseVM,
    RemoveDomain,
    ShutdownDomain,
    VMRecord,
)
from tests.referee.centre import RUNS, stops
from tests.referee.rules.base import Rule
from tests.referee.rules.truth import host_of
from tests.referee.story import Happening

MARGIN_SECONDS = 1.0
LONGEST_AFTER_ALL_SECONDS = 120.0
"""What an ending may take beyond the drain timeout, the grace period and the guest's own time."""
LONGEST_PATIENCE_SECONDS = 300.0
"""So long what failed before may wait until it is tried again."""
GIVEN_UP_SECONDS = 660.0
"""So long a LubanVM may stay whose host left the spec and does not answer."""


class Drained(Rule):
    """A VM is stopped only when no request is in flight on it and none is sent to it any more.

    Excused: it had `balancer.drain.timeout` of the world's time since a publication told the balancers to stop; a VM
    that would not answer the requests anyway.
    """

    name = "drain"

    def begin(self) -> None:
        """Nobody drains yet."""
        self.told: dict[str, float] = {}
        """By VM: when a publication told the balancers to send it nothing new."""
        self.shortest = math.inf
        """The shortest drain timeout that was asked for lately."""

    def before(self, action: Action) -> None:
        """Are there requests?"""
        if isinstance(action, PublishBalancer):
            self._note(action)
        if not stops(action):
            return
        vm = self.centre.vms.get(action.vm.name)  # type: ignore[union-attr]
        if vm is None or not self.centre.in_use(vm):
            return
        waited = self.centre.now - self.told.get(vm.name, math.inf)
        timeout = min(self.shortest, self.centre.spec.balancer.drain.timeout.seconds)
        if waited < timeout - MARGIN_SECONDS:
            since = f"after {waited:.0f} s of {timeout:g} s" if waited > -math.inf else "and no balancer was told"
            self.fault(type(action).__name__, f"{vm.name} is stopped with requests in flight, {since}")

    def _note(self, action: PublishBalancer) -> None:
        enabled = {it.name for it in action.members if it.state == "Enabled"} | self.centre.told(but=action.balancer)
        self.told = {name: since for name, since in self.told.items() if name not in enabled}
        for name in self.centre.vms.keys() - enabled:
            self.told.setdefault(name, self.centre.now)

    def event(self, happening: Happening) -> None:
        """The user may have made the timeout longer since."""
        if happening.kind == "user-sets-drain":
            self.shortest = min(self.shortest, self.centre.spec.balancer.drain.timeout.seconds)


class Grace(Rule):
    """The plug is pulled only when the guest had terminationGracePeriod, in the world's time, to stop by itself.

    Excused: a paused guest, which cannot hear the power button.
    """

    name = "grace"

    def begin(self) -> None:
        """No button was pressed yet."""
        self.pressed: dict[str, float] = {}

    def before(self, action: Action) -> None:
        """Did it have its time?"""
        if not isinstance(action, DestroyDomain) or (vm := self.centre.vms.get(action.vm.name)) is None:
            return
        domain = self.centre.domain(vm)
        if domain is None or domain.state not in ("Running", "ShuttingDown"):
            return
        waited = self.centre.now - self.pressed.get(vm.uid, math.inf)
        grace = self.centre.spec.template.spec.termination_grace_period_seconds
        if waited < grace - MARGIN_SECONDS:
            self.fault(
                "cut-short", f"the plug of {vm.name} is pulled {waited:.0f} s after the button, grace is {grace} s"
            )

    def after(self, action: Action, failure: Failure | None) -> None:
        """The button is pressed."""
        if isinstance(action, ShutdownDomain) and failure is None:
            self.pressed.setdefault(action.vm.uid, self.centre.now)


class NothingLeft(Rule):
    """A domain is removed only when it is off, and a LubanVM let go only when neither domain nor volume is left.

    Excused: what stands on a host that left the spec and does not answer.
    """

    name = "nothing-left"

    def before(self, action: Action) -> None:
        """What is left?"""
        if isinstance(action, RemoveDomain):
            domain = self.centre.domain(action.vm)
            if domain is not None and domain.state in RUNS and self.centre.answering_host(action.vm.host):
                self.fault("removed-running", f"{action.vm.name} is removed while its domain is {domain.state}")
        elif isinstance(action, ReleaseVM) and (vm := self.centre.vms.get(action.name)) is not None:
            given_up = host_of(self.centre, vm.host) is None and not self.centre.rack(vm.host).reachable
            if not given_up and (self.centre.domain(vm) is not None or vm.uid in self.centre.rack(vm.host).overlays):
                self.fault("released", f"{vm.name} is let go, and its domain or its volume is still there")


class DeletionEnds(Rule):
    """Every deletion ends: in drain timeout, grace period and some time more, once its host answers and can delete.

    A host that left the spec and does not answer holds nothing up for more than some minutes. The clock of this rule
    stands still while no operator is there, the cluster is paused, or the host cannot do its part; it begins anew with
    a new operator, who does not know for how long it has been so.
    """

    name = "deletion-ends"

    def begin(self) -> None:
        """Nobody leaves yet."""
        self.waited: dict[str, float] = {}
        self.failed: set[str] = set()
        """VMs of which an action failed."""

    def after(self, action: Action, failure: Failure | None) -> None:
        """What failed may be tried again later."""
        if failure is not None and (vm := getattr(action, "vm", None)) is not None:
            self.failed.add(vm.uid)

    def event(self, happening: Happening) -> None:
        """Another operator?"""
        if happening.kind in ("operator-dies-after", "operator-is-away", "memory-is-lost"):
            self.waited.clear()

    def passed(self, seconds: float, *, working: bool) -> None:
        """How long has it taken?"""
        leaving = [vm for vm in self.centre.vms.values() if vm.deleting_since is not None and vm.has_finalizer]
        for vm in leaving if working else ():
            limit = self._limit(vm)
            if limit is None:
                continue
            before = self.waited.get(vm.uid, 0.0)
            self.waited[vm.uid] = before + seconds
            if before <= limit < self.waited[vm.uid]:
                self.fault(self._key(vm), f"{vm.name} on {vm.host} has been leaving for {self.waited[vm.uid]:.0f} s")

    def _limit(self, vm: VMRecord) -> float | None:
        """How long it may take as things are; None: it cannot go on now."""
        centre = self.centre
        if host_of(centre, vm.host) is None and not centre.rack(vm.host).reachable:
            return GIVEN_UP_SECONDS
        if not centre.answering_host(vm.host) or centre.rack(vm.host).volumes_stuck:
            return None
        grace = centre.spec.template.spec.termination_grace_period_seconds
        patience = LONGEST_PATIENCE_SECONDS if vm.uid in self.failed else 0.0
        return centre.spec.balancer.drain.timeout.seconds + grace + LONGEST_AFTER_ALL_SECONDS + patience

    def _key(self, vm: VMRecord) -> str:
        if not self.centre.rack(vm.host).reachable:
            return "host-given-up"
        domain = self.centre.domain(vm)
        return domain.state if domain is not None else "no-domain"

"""Rules about taking VMs away."""

from __future__ import annotations

from tests.referee.bridge import (
    SURPLUS,
    Action,
    AssignVM,
    CreateVM,
    Domain,
    Failure,
    PublishBalancer,
    RemoveBalancer,
    VMRecord,
)
from tests.referee.centre import stops
from tests.referee.rules.base import Rule, decision, is_own
from tests.referee.rules.truth import (
    asked_for,
    ceiling,
    floor,
    has_place,
    host_of,
    is_emptied,
    load_in_words,
    makes_room,
    may_come_to_run,
    must_move,
    staying,
)
from tests.referee.story import Happening

TOLERANCE_SECONDS = 6.0
"""The referee looks once a tick, and a calm cluster ticks every five seconds."""
PAUSED_SECONDS = 60.0
"""A VM that somebody paused for longer than this has failed, as the documentation says."""


class Answers(Rule):
    """No own action lowers the number of VMs that answer users below min(minVMs, those that answered before).

    Counted are VMs whose guest answers and to which a running httpd sends requests at their true address. VMs that
    the user deleted, or that are leaving already, count on neither side. Judged are the decision (DeleteVM), and any
    publication or stop that takes away a VM of which no decision was taken. Excused: a replacement that the user
    asked for and that cannot begin otherwise (`makes_room`), one VM at a time.
    """

    name = "answers"

    def before(self, action: Action) -> None:
        """Whom does it take away?"""
        victims = [vm for vm in self._victims(action) if is_own(self.centre, vm) and self.centre.serves(vm)]
        if not victims:
            return
        before = [vm for vm in self.centre.serving() if is_own(self.centre, vm)]
        left = len(before) - len(victims)
        needed = min(self.centre.spec.scaling.min_vms, len(before))
        excused = len(victims) == 1 and makes_room(self.centre, victims[0])
        if left < needed and not excused:
            names = ", ".join(vm.name for vm in victims)
            gone = decision(action)
            key = gone[1] if gone is not None else type(action).__name__
            self.fault(key, f"{names} answers users and goes: {len(before)} answered, {left} will, {needed} must")

    def _victims(self, action: Action) -> list[VMRecord]:
        vms = self.centre.vms
        if (decided := decision(action)) is not None:
            return [vms[decided[0]]] if decided[0] in vms else []
        if isinstance(action, PublishBalancer):
            kept = {(it.name, it.address) for it in action.members if it.state == "Enabled"}
            gone = [vm for vm in vms.values() if (vm.name, self._address(vm)) not in kept]
            return [vm for vm in gone if not self.centre.goes_on_without(action.balancer, vm)]
        if isinstance(action, RemoveBalancer):
            return [vm for vm in vms.values() if not self.centre.goes_on_without(action.balancer, vm)]
        return [vm for vm in vms.values() if stops(action) and vm.name == action.vm.name]  # type: ignore[union-attr]

    def _address(self, vm: VMRecord) -> str:
        domain = self.centre.domain(vm)
        return domain.address if domain is not None else ""


class MissingData(Rule):
    """Nothing is removed on a host that does not answer: nobody knows how it is.

    Excused: the user emptied the host (cordoned it, or took it from the spec).
    """

    name = "missing-data"

    def before(self, action: Action) -> None:
        """An own decision about a VM nobody knows?"""
        name, reason = decision(action) or ("", "")
        vm = self.centre.vms.get(name)
        if vm is None or not is_own(self.centre, vm) or is_emptied(self.centre, vm.host):
            return
        if not self.centre.rack(vm.host).reachable:
            self.fault(reason, f"{vm.name} goes, and its host {vm.host} does not answer")


class BlindRemoval(Rule):
    """No VM that answers goes by an own decision while no balancer answers: it could not be drained, and its
    successor could not be attached."""

    name = "blind-removal"

    def before(self, action: Action) -> None:
        """An own decision that no balancer could carry out?"""
        name, reason = decision(action) or ("", "")
        vm = self.centre.vms.get(name)
        if vm is None or not is_own(self.centre, vm) or self.centre.speaks():
            return
        if self.centre.answers(vm) and any(vm.name in gate.enabled() for gate in self.centre.gates):
            self.fault(reason, f"{vm.name} is to go while the balancer says nothing, and gets requests")


class TrueCause(Rule):
    """A VM that runs goes only for a cause that is true when it goes.

    Causes: it does not answer although it had its time; the user asked for something it is in the way of, and its
    successor is there or cannot come before; more VMs are there than may be, or than spec.replicas asks for; it is one
    more than was wanted (a successor came); the load is known and low, now. A load is known while the balancer tells
    it, and at least one VM that answers carries it.

    How many VMs are wanted is kept account of here: as many as were there whenever one was created, except those
    that were created beside one that they replace, or for the sake of a host's minimum.
    """

    name = "true-cause"

    def begin(self) -> None:
        """Nothing was wanted yet."""
        self.wanted = 0
        self.shortest: dict[str, float] = {}
        """By uid: the shortest startupTimeout since the VM was there."""
        self.shown: set[str] = set()
        """UIDs of VMs that answered when they were asked."""
        self.low_since: float | None = None
        self.not_low = 0.0
        """Seconds without a low load, lately."""
        self.failed: set[str] = set()
        """UIDs of VMs whose domain was seen to be off or paused for long, or that did not answer in time."""
        self.paused: dict[str, float] = {}
        """By uid: since when its domain is paused."""

    def before(self, action: Action) -> None:
        """Is there a cause?"""
        name, reason = decision(action) or ("", "")
        vm = self.centre.vms.get(name)
        if vm is None or not is_own(self.centre, vm):
            return
        after = len(staying(self.centre)) - 1
        cause = self._cause(vm, reason, after)
        if not cause:
            self._blame(vm, reason, after)
        if cause in ("low load", "limits") or reason == SURPLUS:
            self.wanted = min(self.wanted, after)
        elif cause and self._may_shrink():
            # The number wanted may sink in the same look, and what goes has another reason to be the first.
            served = sum(self.centre.serves(it) for it in staying(self.centre) if it.name != vm.name)
            self.wanted = min(self.wanted, max(served, floor(self.centre)))

    def _cause(self, vm: VMRecord, reason: str, after: int) -> str:
        """Why it may go, in a word; empty: it may not."""
        centre = self.centre
        if reason != SURPLUS and self._is_lost(vm):
            return "lost"
        if after >= self.wanted:
            return "one too many"
        if after >= self._upmost():
            return "limits"
        if must_move(centre, vm) and not (centre.serves(vm) and has_place(centre, staying(centre), now=False)):
            return "moves"
        return "low load" if self._may_shrink() else ""

    def _may_shrink(self) -> bool:
        """Whether the load is known and low, and has been for as long as the user asked for."""
        scaling = self.centre.spec.scaling
        automatic = scaling.policy != "Manual" and not scaling.pause_scale_in
        return automatic and load_in_words(self.centre) == "low" and self._has_lasted()

    def _has_lasted(self) -> bool:
        window = self.centre.spec.scaling.behavior.scale_down.stabilization_window.seconds
        since = self.centre.now if self.low_since is None else self.low_since
        return self.centre.now - since >= window - TOLERANCE_SECONDS

    def _upmost(self) -> int:
        """No more are wanted than this, whatever was wanted before."""
        scaling, most = self.centre.spec.scaling, ceiling(self.centre)
        if scaling.policy == "Manual" and self.centre.spec.replicas is not None:
            return min(most, max(asked_for(self.centre), self.centre.spec.replicas))
        return most

    def _is_lost(self, vm: VMRecord) -> bool:
        """Whether the VM does not answer, or did not in time: one that failed is kept for a while, and goes even if it
        comes to life by then."""
        domain = self.centre.domain(vm)
        if domain is None or domain.state != "Running" or domain.hung or vm.uid in self.failed:
            return True
        return vm.uid not in self.shown and self._is_late(vm, domain)

    def _is_late(self, vm: VMRecord, domain: Domain) -> bool:
        timeout = self.shortest.get(vm.uid, vm.template.startup_timeout.seconds)
        return self.centre.now - domain.started >= timeout - 1.0

    def _blame(self, vm: VMRecord, reason: str, after: int) -> None:
        if reason == SURPLUS:
            load = load_in_words(self.centre)
            load = f"{load}-briefly" if load == "low" else load
            held = " (scale-in is paused)" if self.centre.spec.scaling.pause_scale_in else ""
            self.fault(f"{reason}-{load}", f"{vm.name} goes for low load{held}, load is {load}; {after} stay")
        elif not self.centre.answers(vm):
            self.fault(f"{reason}-early", f"{vm.name} is given up before its startupTimeout is over")
        else:
            self.fault(reason, f"{vm.name} answers and goes ({reason}), {after} stay of {self.wanted} wanted")

    def after(self, action: Action, failure: Failure | None) -> None:
        """One more is wanted, unless it replaces another."""
        comes = isinstance(action, CreateVM | AssignVM) and action.role == "Serving"
        if not comes or failure is not None:
            return
        host = action.host if isinstance(action, CreateVM) else self.centre.vms[action.name].host
        # One whose domain ended by itself or is paused is replaced, not joined, whatever its status says yet.
        here = [vm for vm in staying(self.centre) if may_come_to_run(self.centre, vm) and not self._is_paused(vm)]
        if not any(must_move(self.centre, vm) for vm in here) and not self._fills_host(host, here):
            self.wanted = max(self.wanted, len(here))

    def _is_paused(self, vm: VMRecord) -> bool:
        domain = self.centre.domain(vm)
        return domain is not None and domain.state == "Paused"

    def _fills_host(self, name: str, here: list[VMRecord]) -> bool:
        host = host_of(self.centre, name)
        return host is not None and sum(vm.host == name for vm in here) <= host.vms.min

    def passed(self, seconds: float, *, working: bool) -> None:
        """Who has shown that it answers, who has failed? How long has the load been low?"""
        centre = self.centre
        self._watch_load(seconds)
        for vm in centre.vms.values():
            domain = centre.domain(vm)
            if domain is None:
                continue
            if self._has_failed(vm, domain):
                self.failed.add(vm.uid)
            elif working and not centre.probes_lost and centre.answering_host(vm.host) and centre.answers(vm):
                self.shown.add(vm.uid)

    def _has_failed(self, vm: VMRecord, domain: Domain) -> bool:
        if domain.state != "Paused":
            self.paused.pop(vm.uid, None)
        elif self.centre.now - self.paused.setdefault(vm.uid, self.centre.now) > PAUSED_SECONDS - TOLERANCE_SECONDS:
            return True
        return domain.state in ("Off", "Crashed") or (vm.uid not in self.shown and self._is_late(vm, domain))

    def _watch_load(self, seconds: float) -> None:
        """A load that is not low for less than the policy's interval may go unnoticed."""
        low = load_in_words(self.centre) == "low"
        self.not_low = 0.0 if low else self.not_low + seconds
        if low and self.low_since is None:
            self.low_since = self.centre.now - seconds
        elif self.not_low > self.centre.spec.scaling.interval.seconds + TOLERANCE_SECONDS:
            self.low_since = None

    def event(self, happening: Happening) -> None:
        """A shorter startupTimeout holds for the VMs there are, and so does a wish for fewer."""
        self.wanted = min(self.wanted, self._upmost())
        now = self.centre.spec.template.spec.startup_timeout.seconds
        for vm in self.centre.vms.values():
            self.shortest[vm.uid] = min(now, self.shortest.get(vm.uid, vm.template.startup_timeout.seconds))


class HostMinimum(Rule):
    """No VM that is one too many is taken from a host that is left with fewer than its vms.min.

    Excused: VMs that do not answer, or that make way for another (see `must_move`); hosts that the user emptied.
    """

    name = "host-minimum"

    def before(self, action: Action) -> None:
        """Who stays on its host?"""
        name, reason = decision(action) or ("", "")
        if reason != SURPLUS:
            return
        vm = self.centre.vms.get(name)
        if vm is None or not is_own(self.centre, vm) or must_move(self.centre, vm) or not self.centre.answers(vm):
            return
        host = host_of(self.centre, vm.host)
        rest = sum(it.host == vm.host and it.name != vm.name for it in staying(self.centre))
        if host is not None and rest < host.vms.min:
            self.fault(reason, f"{vm.name} goes, {rest} stay on {vm.host}, whose minimum is {host.vms.min}")

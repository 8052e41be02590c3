"""Rules about how the operator behaves: reasons, pauses, patience, and requests that go nowhere."""

from __future__ import annotations

from collections import defaultdict

from tests.referee.bridge import Action, CreateVM, DeleteVM, Failure, UpdateVM, VMRecord
from tests.referee.centre import RUNS
from tests.referee.rules.base import Rule, is_own
from tests.referee.rules.truth import is_emptied, is_outdated
from tests.referee.story import Happening

LONGEST_GAP_SECONDS = 300.0
TOLERANCE = 0.8


class Reasons(Rule):
    """Every action has a reason."""

    name = "reason"

    def before(self, action: Action) -> None:
        """Has it?"""
        if not action.reason:
            self.fault(type(action).__name__, f"{action} has no reason")


class Paused(Rule):
    """Nothing is done while spec.paused is set; a cluster that is deleted goes all the same."""

    name = "paused"

    def before(self, action: Action) -> None:
        """Is it paused?"""
        if self.centre.spec.paused and not self.centre.deleting:
            self.fault(type(action).__name__, f"{type(action).__name__} while paused")


class Patience(Rule):
    """What fails again and again is tried ever more rarely: doubling, up to every five minutes.

    For each kind of action, VM and reason: after n failures in a row the next attempt is not made before 2^(n-6) s.
    For VMs that never came to answer: after n of those the next is not created before 5 * 2^(n-4) s, and it is one,
    not all; those that the user wants replaced have not failed. Counts begin anew after every event that may change
    what works (KINDS' `matters`), and as soon as another VM answers its probe.
    """

    name = "patience"

    def begin(self) -> None:
        """Nothing has failed yet."""
        self._forget()

    def _forget(self) -> None:
        self.failed: dict[str, list[float]] = defaultdict(list)
        self.fruitless: set[str] = set()
        self.up: set[str] = set()
        self.created: float | None = None

    def event(self, happening: Happening) -> None:
        """All may be different now."""
        if self.matters(happening):
            self._forget()

    def healed(self) -> None:
        """All is different now."""
        self._forget()

    def before(self, action: Action) -> None:
        """A VM in place of others that never answered?"""
        up = {vm.uid for vm in self.centre.vms.values() if self._up(vm)}
        if up - self.up:
            self.fruitless.clear()
        self.up |= up
        if isinstance(action, CreateVM):
            self._creation(action)
        elif isinstance(action, DeleteVM | UpdateVM) and (vm := self.centre.vms.get(action.name)) is not None:
            failed = isinstance(action, DeleteVM) or action.phase == "Failed"
            if failed and self._in_vain(vm):
                self.fruitless.add(vm.uid)

    def _in_vain(self, vm: VMRecord) -> bool:
        centre = self.centre
        kept = is_own(centre, vm) and not is_emptied(centre, vm.host) and not is_outdated(centre, vm)
        return kept and vm.uid not in centre.ever_answered and not self._up(vm)

    def _up(self, vm: VMRecord) -> bool:
        return self.centre.answers(vm)

    def _creation(self, action: CreateVM) -> None:
        count, last, now = len(self.fruitless), self.created, self.centre.now
        self.created = now
        if count < 4 or last is None:
            return
        needed = min(LONGEST_GAP_SECONDS, 5.0 * 2 ** min(count - 4, 6))
        if now - last < needed * TOLERANCE:
            self.fault("create", f"{count} VMs never answered, another is created {now - last:.0f} s after the last")

    def after(self, action: Action, failure: Failure | None) -> None:
        """One more failure of this kind?"""
        kind, vm = type(action).__name__, getattr(getattr(action, "vm", None), "name", "")
        if failure is None:
            for cause in [it for it in self.failed if it.startswith(f"{kind} {vm} ")]:
                del self.failed[cause]
            return
        times = self.failed[f"{kind} {vm} {failure.reason}"]
        times.append(self.centre.now)
        count = len(times) - 1
        needed = min(LONGEST_GAP_SECONDS, 2.0 ** min(count - 6, 9))
        if count >= 6 and times[-1] - times[-2] < needed * TOLERANCE:
            gap = times[-1] - times[-2]
            self.fault(kind, f"{kind} {vm} failed {count} times ({failure.reason}), tried again after {gap:.1f} s")


class Routes(Rule):
    """While agent, host and operator work: no request goes for long to a VM that is gone, off or elsewhere; none that
    answers, and is not leaving, is left without requests for long.

    httpd's own health checks pass over a VM that hangs: it may stay listed.
    """

    name = "route"
    STALE_SECONDS = 45.0
    LEFT_OUT_SECONDS = 240.0

    def begin(self) -> None:
        """All is well so far."""
        self.stale: dict[str, float] = {}
        self.left_out: dict[str, float] = {}

    def passed(self, seconds: float, *, working: bool) -> None:
        """How long has it been so?"""
        if not working or not all(gate.speaks() for gate in self.centre.gates):
            return
        self._count(self.stale, self._stale(), seconds, self.STALE_SECONDS, "stale")
        self._count(self.left_out, self._left_out(), seconds, self.LEFT_OUT_SECONDS, "left-out")

    def _count(self, sums: dict[str, float], names: set[str], seconds: float, limit: float, key: str) -> None:
        for name in sums.keys() - names:
            del sums[name]
        for name in names:
            before = sums.get(name, 0.0)
            sums[name] = before + seconds
            if before <= limit < sums[name]:
                words = "gets requests and is not there" if key == "stale" else "answers and gets no requests"
                self.fault(key, f"{name} {words}, for {sums[name]:.0f} s")

    def _stale(self) -> set[str]:
        applied = (gate.applied for gate in self.centre.gates)
        enabled = [it for content in applied if content for it in content.members if it.state == "Enabled"]
        return {it.name for it in enabled if self._is_gone(it.name, it.address)}

    def _is_gone(self, name: str, address: str) -> bool:
        vm = self.centre.vms.get(name)
        if vm is None:
            # A domain that someone tore out of Kubernetes runs on for some minutes.
            return not any(it.address == address and it.state in RUNS for it in self.centre.domains().values())
        if not self.centre.answering_host(vm.host):
            return False
        domain = self.centre.domain(vm)
        return domain is None or domain.state not in RUNS or domain.address != address

    def _left_out(self) -> set[str]:
        centre = self.centre
        if centre.deleting or centre.probes_lost:
            return set()
        return {
            vm.name
            for vm in centre.vms.values()
            if vm.deleting_since is None
            and centre.answering_host(vm.host)
            and not centre.rack(vm.host).cut
            and centre.answers(vm)
            and not centre.routed(vm)
            and not self._shares_address(vm)
        }

    def _shares_address(self, vm: VMRecord) -> bool:
        """Whether the network gave its address to another one too: only one of them can have it."""
        domains = self.centre.domains()
        own = domains.get(vm.uid)
        return own is not None and any(it.address == own.address for uid, it in domains.items() if uid != vm.uid)

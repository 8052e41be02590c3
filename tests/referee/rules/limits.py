"""Rules about how many VMs there may be, and where."""

from __future__ import annotations

from tests.referee.bridge import Action, CreateVM, EnsureDomain
from tests.referee.centre import RUNS
from tests.referee.rules.base import Rule
from tests.referee.rules.truth import admits, host_of, may_come_to_run, runs_on


class Maxima(Rule):
    """Never more domains that run, or may come to run, than maxVMs, or than a host's vms.max, by an own action.
    Those of the pool count for their hosts alone.

    Judged when a VM is created, and again when its domain is started: a maximum may have been lowered meanwhile.
    What a user tore out of Kubernetes is not counted (see `may_come_to_run` for hosts that were given up).
    """

    name = "maximum"

    def before(self, action: Action) -> None:
        """How many are there?"""
        if isinstance(action, CreateVM):
            self._created(action)
        elif isinstance(action, EnsureDomain):
            self._started(action)

    def _created(self, action: CreateVM) -> None:
        vms = [vm for vm in self.centre.vms.values() if may_come_to_run(self.centre, vm)]
        here, host = sum(vm.host == action.host for vm in vms), host_of(self.centre, action.host)
        serving = sum(vm.role == "Serving" for vm in vms)
        if action.role == "Serving" and serving >= self.centre.spec.scaling.max_vms:
            self.fault("create-maxVMs", f"{action.name} is created beside {len(vms)} that run or may come to run")
        if host is not None and here >= host.vms.max:
            self.fault("create-host", f"{action.name} is created on {host.name} beside {here}, maximum {host.vms.max}")

    def _started(self, action: EnsureDomain) -> None:
        vm, centre = action.vm, self.centre
        domain, host = centre.domain(vm), host_of(centre, vm.host)
        if domain is not None and domain.state in RUNS:
            return
        here = runs_on(centre, vm.host, but=vm.uid)
        total = sum(runs_on(centre, name, but=vm.uid, pool=False) for name in {it.host for it in centre.vms.values()})
        if host is not None and here >= host.vms.max:
            self.fault("start-host", f"{vm.name} is started on {host.name} beside {here}, maximum {host.vms.max}")
        if vm.role == "Serving" and total >= centre.spec.scaling.max_vms:
            self.fault("start-maxVMs", f"{vm.name} is started beside {total}, maxVMs {centre.spec.scaling.max_vms}")


class Placement(Rule):
    """A VM is created, and its domain started, only on a host that is in the spec and not cordoned; it is created only
    on one that answers and whose bond is good enough."""

    name = "placement"

    def before(self, action: Action) -> None:
        """May it be there?"""
        if isinstance(action, CreateVM):
            self._check(action.host, action.name, "create")
        elif isinstance(action, EnsureDomain) and self._starts(action):
            self._check(action.vm.host, action.vm.name, "start")

    def _starts(self, action: EnsureDomain) -> bool:
        domain = self.centre.domain(action.vm)
        return domain is None or domain.state not in RUNS

    def _check(self, name: str, vm: str, what: str) -> None:
        host = host_of(self.centre, name)
        if host is None or host.cordoned:
            self.fault(f"{what}-emptied", f"{what} {vm} on {name}, which is cordoned or not in the spec")
        elif what == "create" and not self.centre.rack(name).reachable:
            self.fault("create-silent", f"create {vm} on {name}, which does not answer")
        elif what == "create" and not admits(self.centre, host):
            bond, policy = self.centre.rack(name).bond, self.centre.spec.bond_policy
            self.fault("create-bond", f"create {vm} on {name}, whose bond is {bond} (bondPolicy {policy})")


class OneAddress(Rule):
    """No two VMs are given to a balancer at one address: the answers of one would count for the other."""

    name = "one-address"

    def before(self, action: Action) -> None:
        """Is an address given twice?"""
        members = getattr(action, "members", ())
        enabled = [it.address for it in members if it.state == "Enabled"]
        for address in sorted({it for it in enabled if enabled.count(it) > 1}):
            names = ", ".join(it.name for it in members if it.address == address and it.state == "Enabled")
            self.fault("shared", f"{names} are all Enabled at {address}")

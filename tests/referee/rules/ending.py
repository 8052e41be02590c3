"""Rules about the end of a story: all faults are healed, and nothing happens any more."""

from __future__ import annotations

from tests.referee.bridge import Plan, VMRecord, WatchedOperator
from tests.referee.centre import DataCentre
from tests.referee.rules.base import Rule
from tests.referee.rules.truth import admits, ceiling, floor, has_place, is_emptied, is_outdated, load_in_words


def is_warm(centre: DataCentre, vm: VMRecord) -> bool:
    """Whether it waits in the pool."""
    domain = centre.domain(vm)
    return vm.role == "Warm" and vm.deleting_since is None and domain is not None and domain.state == "Paused"


class Rest(Rule):
    """With constant load and nothing that goes wrong a cluster comes to rest; a second plan, and the plan of an
    operator that has just been started, are empty then."""

    name = "rest"

    def restless(self, seconds: float, made: Plan) -> None:
        """It goes on and on."""
        kinds = sorted({type(it).__name__ for it in made.actions})
        self.fault("+".join(kinds) or "waits", f"does not come to rest in {seconds:.0f} s: {made.decision.message}")

    def rested(self) -> None:
        """Nothing has happened for long."""
        operator = self.stage.operator
        if actions := operator.look().actions:
            self.fault("second-plan", f"a second plan does {actions[0]}")
        twin = WatchedOperator(self.centre, status=operator.status)
        twin.restart()
        if actions := twin.look().actions:
            self.fault("restart", f"an operator that has just been started does {actions[0]}")


class WellInTheEnd(Rule):
    """After everything has healed: as many VMs answer users as the policy asks for, or as there is room for; all are of
    the wanted template, on hosts where they may be; nothing else is there.

    What the policy asks for is worked out here: within the limits; replicas, if policy is Manual; else no more while
    the load is not high, no fewer while it is not low.
    """

    name = "end"

    def rested(self) -> None:
        """Look at everything."""
        if self._silent():
            return
        self._leftovers()
        serving = self.centre.serving()
        self._attachments(serving)
        self._number(len(serving))
        for vm in serving:
            self._place(vm, [it for it in serving if it.name != vm.name])
        for host in self.centre.spec.hosts:
            here = [vm for vm in serving if vm.host == host.name]
            if len(here) > host.vms.max and has_place(self.centre, serving, now=True):
                self.fault("host-above-maximum", f"{host.name} has {len(here)}, maximum {host.vms.max}")

    def _attachments(self, serving: list[VMRecord]) -> None:
        """Where there can be several balancers: each VM has as many as it should, and they have as many as each
        other."""
        centre, balancer = self.centre, self.centre.spec.balancer
        if balancer.attachment.mode == "Single":
            return
        p = min(balancer.attachment.p if balancer.attachment.mode == "Cross" else 1, len(centre.gates))
        counts = [sum(centre.routes(gate, vm) for vm in serving) for gate in centre.gates]
        for vm in serving:
            if (found := sum(centre.routes(gate, vm) for gate in centre.gates)) != p:
                self.fault("attachments", f"{vm.name} gets requests from {found} balancers, not from {p}")
        if max(counts) > balancer.attachment.d_max:
            self.fault("balancer-above-maximum", f"{counts} VMs, maximum {balancer.attachment.d_max}")
        if max(counts) - min(counts) > 1:
            self.fault("balancers-differ", f"{counts} VMs")

    def _place(self, vm: VMRecord, others: list[VMRecord]) -> None:
        """Is it what is wanted, where it is wanted, if another could take its place?"""
        crowded = len(others) + 1 >= self.centre.spec.scaling.max_vms
        if not has_place(self.centre, others, now=True) or (crowded and not self.centre.rack(vm.host).reachable):
            # One that answers on a host that does not may stay while another would be one above maxVMs.
            return
        if is_outdated(self.centre, vm):
            self.fault("outdated", f"{vm.name} is of an old template")
        if is_emptied(self.centre, vm.host):
            self.fault("not-moved", f"{vm.name} is on {vm.host}, which is cordoned or not in the spec")

    def _silent(self) -> bool:
        """Whether there are VMs that do not answer, though their hosts do: the rest would follow from that."""
        centre = self.centre
        here = [vm for vm in centre.vms.values() if centre.rack(vm.host).reachable and not is_warm(self.centre, vm)]
        silent = [vm for vm in here if not centre.serves(vm) and not self._waits_for_a_host(vm)]
        for vm in silent:
            self.fault(self._state(vm), f"{vm.name} on {vm.host} is {self._state(vm)}, and stays so")
        return bool(silent)

    def _waits_for_a_host(self, vm: VMRecord) -> bool:
        """Whether it was not started yet on a host that was emptied since, and no other can take it."""
        untouched = self.centre.domain(vm) is None and vm.deleting_since is None
        return (
            untouched
            and is_emptied(self.centre, vm.host)
            and not has_place(self.centre, self.centre.serving(), now=True)
        )

    def _leftovers(self) -> None:
        """A VM that was torn out may serve on while no other can come in its place."""
        centre = self.centre
        strangers = {name for gate in centre.gates for name in gate.enabled()} - centre.vms.keys()
        if strangers and not has_place(centre, centre.serving(), now=True):
            return
        known = {host.name for host in centre.spec.hosts}
        uids = {vm.uid for vm in centre.vms.values()}
        for name, rack in centre.machines.items():
            strays = (rack.domains.keys() | rack.overlays) - uids
            if strays and name in known and rack.reachable:
                self.fault("leftover", f"{', '.join(sorted(strays))} on {name} belongs to no VM")

    def _state(self, vm: VMRecord) -> str:
        if vm.deleting_since is not None:
            return "leaving"
        domain = self.centre.domain(vm)
        if domain is None or domain.state != "Running":
            return domain.state.lower() if domain is not None else "without-domain"
        return "unrouted" if self.centre.answers(vm) else "silent"

    def _number(self, count: int) -> None:
        centre, least, most = self.centre, floor(self.centre), ceiling(self.centre)
        room = count < most and has_place(centre, centre.serving(), now=True)
        if count > most:
            self.fault("too-many", f"{count} answer, {most} may")
        if count < least and room:
            self.fault("too-few", f"{count} answer, {least} must, and there is room")
        replicas, scaling = centre.spec.replicas, centre.spec.scaling
        if scaling.policy == "Manual" and replicas is not None:
            asked = min(max(replicas, least), most)
            if (count > asked and not scaling.pause_scale_in) or (count < asked and room):
                self.fault("replicas", f"{count} answer, {asked} are asked for")
        elif scaling.policy != "Manual":
            self._against_load(count, room, least)

    def _against_load(self, count: int, room: bool, least: int) -> None:
        load, centre = load_in_words(self.centre), self.centre
        if load == "high" and room:
            self.fault("not-grown", f"load is high, {count} answer, and there is room")
        counts = {host.name: sum(vm.host == host.name for vm in centre.serving()) for host in centre.spec.hosts}
        spare = [host for host in centre.spec.hosts if counts[host.name] > (0 if host.cordoned else host.vms.min)]
        if load == "low" and count > least and not centre.spec.scaling.pause_scale_in and spare and count > 1:
            scaling = centre.spec.scaling
            if scaling.policy != "Sessions" or scaling.sessions.lower_quorum > 1:
                self.fault("not-shrunk", f"load is low, {count} answer, {least} must")


class WarmPool(Rule):
    """After everything has healed the pool is full, or no host has room; all of it is suspended, of the wanted
    template, on hosts where it may be; and two or more are not all on one host, if another has room."""

    name = "pool"

    def rested(self) -> None:
        """Count what is suspended."""
        centre, size = self.centre, self.centre.spec.pool.size
        pool = [vm for vm in centre.vms.values() if is_warm(centre, vm) and centre.rack(vm.host).reachable]
        hosts = {vm.host for vm in pool}
        if len(pool) < size and self._free_hosts():
            self.fault("too-small", f"{len(pool)} are warm, {size} are asked for, and there is room")
        if len(pool) > size:
            self.fault("too-large", f"{len(pool)} are warm, {size} are asked for")
        if 1 < size == len(pool) and len(hosts) == 1 and self._free_hosts() - hosts:
            self.fault("on-one-host", f"all {size} are on {hosts.pop()}")
        for vm in pool:
            if is_outdated(centre, vm) or is_emptied(centre, vm.host):
                self.fault("outdated", f"{vm.name} on {vm.host} must not stay in the pool")

    def _free_hosts(self) -> set[str]:
        centre = self.centre
        return {
            host.name
            for host in centre.spec.hosts
            if not host.cordoned
            and centre.rack(host.name).reachable
            and admits(centre, host)
            and sum(vm.host == host.name for vm in centre.vms.values()) < host.vms.max
        }


class ClusterDeletionEnds(Rule):
    """A cluster that is deleted is gone some time after all faults have healed, and nothing of it is left; with
    deletionPolicy Orphan, whoever answered before answers still."""

    name = "cluster-deletion"

    def ended(self, seconds: float, before: set[str]) -> None:
        """`before`: VMs that answered when the deletion was asked for, and that no one deleted."""
        centre = self.centre
        if not self.stage.operator.finished:
            left = ", ".join(f"{vm.name} on {vm.host}" for vm in centre.vms.values()) or "nothing"
            self.fault("endless", f"not over after {seconds:.0f} s; left: {left}")
        elif centre.spec.deletion_policy == "Delete":
            self._nothing_left()
        else:
            silent = sorted(before - {vm.name for vm in centre.serving()})
            if silent:
                self.fault("orphans-silent", f"{', '.join(silent)} answered before the cluster was deleted")

    def _nothing_left(self) -> None:
        known = {host.name for host in self.centre.spec.hosts}
        here = [rack for name, rack in self.centre.machines.items() if name in known and rack.reachable]
        if self.centre.vms or any(rack.domains or rack.overlays for rack in here):
            self.fault("left", "the cluster is gone, and something of it is still there")

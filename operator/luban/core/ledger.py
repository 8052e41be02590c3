"""Who takes which room and which address while one plan is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from luban.api.cluster import Host
from luban.core.model import VMRecord
from luban.core.placement import Occupancy


class Addresses:
    """Addresses of the hosts' forward ranges: each is one VM's alone."""

    def __init__(self, taken: Iterable[str]) -> None:
        """`taken`: one for each VM, domain or member that has it."""
        self._taken = Counter(taken)
        self._lowest: dict[str, int] = {}
        """By prefix: no lower one is free."""

    def lowest(self, forward_range: str) -> str:
        """The lowest free address of a range; empty: all are taken."""
        prefix = forward_range.removesuffix("0/24")
        for last in range(self._lowest.get(prefix, 2), 255):
            if not self._taken[f"{prefix}{last}"]:
                self._lowest[prefix] = last
                return f"{prefix}{last}"
        self._lowest[prefix] = 255
        return ""

    def take(self, address: str) -> None:
        """A VM has the address."""
        self._taken[address] += 1

    def release(self, address: str) -> None:
        """A VM that had the address is gone."""
        self._taken[address] -= 1
        self._lowest.clear()


class Ledger:
    """Counts that follow each VM that comes or goes. They change, so they live inside one plan."""

    def __init__(
        self,
        *,
        live: int,
        total: int,
        occupancy: Mapping[str, Occupancy],
        broken: Counter[str],
        addresses: Addresses | None,
    ) -> None:
        self.live = live
        """VMs that count towards the wanted number."""
        self.total = total
        """VMs that take room."""
        self.occupancy = {host: Occupancy(found.live, found.held, found.failed) for host, found in occupancy.items()}
        """By host."""
        self.broken = broken
        """By host: VMs that failed there and are not gone."""
        self.gone: set[str] = set()
        """VMs of which nothing is left."""
        self._addresses = addresses

    def leave(self, vm: VMRecord, *, holds: bool) -> None:
        """A live VM is asked to leave. `holds`: it takes its room until it is gone."""
        found = self.occupancy[vm.host]
        self.live -= 1
        found.live -= 1
        found.failed -= vm.phase == "Failed"
        if not holds:
            self.total -= 1
            found.held -= 1
        if not vm.has_finalizer:
            self._forget(vm)

    def _forget(self, vm: VMRecord) -> None:
        """Nothing is left of a VM, for nobody keeps its LubanVM: neither its address nor that it failed."""
        self.gone.add(vm.name)
        self.broken[vm.host] -= vm.phase == "Failed"
        if self._addresses is not None:
            self._addresses.release(vm.planned_address)

    @contextmanager
    def without(self, vm: VMRecord) -> Iterator[None]:
        """As if nothing were left of a VM that takes room: for the question what else would fit then."""
        found, memory = self.occupancy[vm.host], vm.template.domain.memory.max.bytes
        found.held -= 1
        found.returned += 1
        found.returned_memory += memory
        if self._addresses is not None:
            self._addresses.release(vm.planned_address)
        yield
        found.held += 1
        found.returned -= 1
        found.returned_memory -= memory
        if self._addresses is not None:
            self._addresses.take(vm.planned_address)

    def arrive(self, host: str, address: str) -> None:
        """A VM is made."""
        found = self.occupancy[host]
        self.live += 1
        self.total += 1
        found.live += 1
        found.held += 1
        found.arrived += 1
        if self._addresses is not None:
            self._addresses.take(address)

    def take(self, vm: VMRecord) -> None:
        """A VM comes out of the pool: its room it had before."""
        self.live += 1
        self.total += 1
        self.occupancy[vm.host].live += 1

    def free_address(self, host: Host) -> str:
        """The lowest free address of the host's forward range; empty: there is none, or none is needed."""
        return self._addresses.lowest(host.forward_range) if self._addresses is not None else ""

    def has_address(self, host: Host) -> bool:
        """Whether the host has an address left for one more VM, or needs none."""
        return self._addresses is None or bool(self.free_address(host))

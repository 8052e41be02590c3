"""VMs whose domains wait to be started, in their turn: none may start above a maximum that was lowered meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from luban.core.model import VMRecord


class Turns:
    """Who may start, oldest first, as long as its host and the cluster have room left."""

    def __init__(self, waiting: Sequence[VMRecord], free: Mapping[str, int], left: int) -> None:
        """`waiting`: oldest first. `free`: by host, room for those that wait; none on a host that is missing. `left`:
        the same of the cluster."""
        self.barred: set[str] = set()
        """VMs that must not start."""
        self._fresh: list[str] = []
        self._host = {vm.name: vm.host for vm in waiting}
        self._free = defaultdict(int, free)
        self._left = left
        self._admitted: list[str] = []
        self._admitted_on: dict[str, list[str]] = defaultdict(list)
        for vm in waiting:
            self._admit(vm)

    def _admit(self, vm: VMRecord) -> None:
        if self._left <= 0 or self._free[vm.host] <= 0:
            self._bar(vm.name)
            return
        self._free[vm.host] -= 1
        self._left -= 1
        self._admitted.append(vm.name)
        self._admitted_on[vm.host].append(vm.name)

    def leave(self, name: str) -> None:
        """One that waits is asked to leave. It takes its room until it is gone: one that was barred takes it from the
        last one that could have had it."""
        host = self._host.pop(name, None)
        if host is None or name not in self.barred:
            return
        self.barred.remove(name)
        if self._free[host] <= 0 and (last := self._last(self._admitted_on[host])):
            self._bar(last)
            return
        self._free[host] -= 1
        if self._left <= 0 and (last := self._last(self._admitted)):
            self._bar(last)
            self._free[self._host[last]] += 1
        else:
            self._left -= 1

    def newly_barred(self) -> list[str]:
        """Those that were barred since this was asked last."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _bar(self, name: str) -> None:
        self.barred.add(name)
        self._fresh.append(name)

    def _last(self, admitted: list[str]) -> str:
        """Takes away the last of those that are still admitted, and are not asked to leave; empty: there is none."""
        while admitted:
            name = admitted.pop()
            if name in self._host and name not in self.barred:
                return name
        return ""

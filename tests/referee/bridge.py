"""All that the referee takes from the code under test and from its simulator: change names here and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast, get_args

from luban.api.cluster import BondPolicy, Host, LubanClusterSpec
from luban.api.host import BondVerdict
from luban.api.measures import Measure
from luban.api.template import IN_PLACE_FIELDS as TIMINGS
from luban.core.model import (
    Action,
    AssignVM,
    CreateVM,
    DeleteVM,
    DestroyDomain,
    EnsureDomain,
    Failure,
    HostObservation,
    Member,
    Observation,
    Plan,
    PublishBalancer,
    ReleaseVM,
    RemoveBalancer,
    RemoveDomain,
    RemoveStray,
    ShutdownDomain,
    SuspendDomain,
    UpdateVM,
    VMRecord,
)
from luban.core.plan import plan
from luban.core.times import Now
from tests.fakes.simulator import (
    BALANCER,
    CLUSTER,
    EPOCH,
    Domain,
    Machine,
    Operator,
    Proxy,
    World,
    figures_at,
    in_words,
    make_spec,
)

__all__ = [
    "BALANCER",
    "BONDS",
    "BOND_POLICIES",
    "EPOCH",
    "SURPLUS",
    "TIMINGS",
    "Action",
    "AssignVM",
    "BondVerdict",
    "CreateVM",
    "DeleteVM",
    "DestroyDomain",
    "Domain",
    "EnsureDomain",
    "Failure",
    "Host",
    "HostObservation",
    "LubanClusterSpec",
    "Machine",
    "Measure",
    "Member",
    "Observation",
    "Plan",
    "Proxy",
    "PublishBalancer",
    "ReleaseVM",
    "RemoveBalancer",
    "RemoveDomain",
    "RemoveStray",
    "ShutdownDomain",
    "SuspendDomain",
    "UpdateVM",
    "VMRecord",
    "WatchedOperator",
    "World",
    "figures_at",
    "in_words",
    "make_spec",
]

BONDS: tuple[BondVerdict, ...] = get_args(BondVerdict)
BOND_POLICIES: tuple[BondPolicy, ...] = get_args(BondPolicy)
SURPLUS = "AboveDesired"
"""The reason that the operator gives for taking away a VM that is one too many."""


class WatchedOperator(Operator):
    """The simulator's operator, with a wall clock of its own that may be set."""

    def look(self) -> Plan:
        """Observe and plan, and do nothing."""
        world = self.world
        seen = replace(world.observe(self.provision_failures), action_failures=dict(self.action_failures))
        now = Now(cast("Any", world).wall, world.now)
        return plan(world.spec, CLUSTER, seen, self.memory, now, deleting=world.deleting)

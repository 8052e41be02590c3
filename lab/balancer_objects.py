"""What the operator makes for a cluster's balancers, for those who cannot wait for it: as the operator, by kubectl."""

from __future__ import annotations

import json

from lab.controlplane import ControlPlane
from luban.api.balancer import Balancer
from luban.api.names import OPERATOR_USER
from luban.render.balancer_objects import AgentProgram, balancer_objects

PROGRAM = AgentProgram("luban-cloud", OPERATOR_USER)


def apply_balancer_objects(plane: ControlPlane, namespace: str, cluster: str) -> None:
    """Make them with the operator's rights, as a LubanCluster with all defaults has them. Idempotent."""
    bodies = balancer_objects(namespace, cluster, Balancer(), 1, PROGRAM)
    listed = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
    options = ("--server-side", "--field-manager=luban-operator", "--force-conflicts", f"--as={OPERATOR_USER}")
    plane.kubectl("apply", *options, "-f", "-", stdin=json.dumps(listed))

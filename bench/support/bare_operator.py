"""A kopf operator that watches what Luban's does, and does nothing: what kopf alone takes.

`python -m bench.support.bare_operator ADDRESS:PORT`, where it says that it lives. The kubeconfig: $KUBECONFIG.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import kopf

GROUP, VERSION = "luban.cloud", "v1alpha1"
"""Not from luban.api.names: with it comes the whole of luban.api, and memory that kopf alone does not take."""
WATCHED = (
    (GROUP, VERSION, "lubanclusters"),
    (GROUP, VERSION, "lubanvms"),
    (GROUP, VERSION, "lubanhosts"),
    ("", "v1", "configmaps"),
    ("coordination.k8s.io", "v1", "leases"),
)


def registry() -> kopf.OperatorRegistry:
    """An empty handler for each kind of object."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs)

    for resource in WATCHED:

        @kopf.on.event(*resource, registry=made, id=f"seen-{resource[2]}")
        async def seen(**_: Any) -> None:
            """Nothing to do."""

    return made


def main() -> None:
    """Run until it is stopped."""
    endpoint = f"http://{sys.argv[1]}/healthz"
    asyncio.run(kopf.operator(registry=registry(), standalone=True, clusterwide=True, liveness_endpoint=endpoint))


if __name__ == "__main__":
    main()

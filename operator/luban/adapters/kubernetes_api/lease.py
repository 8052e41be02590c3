"""ports.LeaseStore on a real API server: one Lease of coordination.k8s.io."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from luban.adapters.kubernetes_api.calls import LEASES, MERGE_PATCH, Call
from luban.adapters.kubernetes_api.transport import Transport, open_transport
from luban.errors import NotFound
from luban.ports import LeaseRecord

DEADLINE_SECONDS = 3.0
"""For a call with its retries: several must fit into the time for which a leader is sure."""


async def connect_lease(kubeconfig: str | None, namespace: str, name: str) -> KubernetesLease:
    """Prepare access to a Lease; nothing is sent yet. To be closed after use.

    Raises PermanentError InvalidKubeconfig.
    """
    return KubernetesLease(await open_transport(kubeconfig, None, deadline=DEADLINE_SECONDS), namespace, name)


class KubernetesLease:
    """A Lease; see ports.LeaseStore for what each call promises."""

    def __init__(self, transport: Transport, namespace: str, name: str) -> None:
        self._transport = transport
        self._namespace = namespace
        self._name = name
        self._transitions = 0

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def read(self) -> LeaseRecord | None:
        """What it says now; None: it is not there."""
        try:
            return self._record(await self._transport.send(Call("get", LEASES, self._namespace, self._name)))
        except NotFound:
            return None

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """Make it."""
        spec = _spec(record) | {"acquireTime": _now(), "leaseTransitions": 0}
        body = {
            "apiVersion": f"{LEASES.group}/{LEASES.version}",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }
        return self._record(await self._transport.send(Call("create", LEASES, self._namespace, body=body)))

    async def take(self, record: LeaseRecord) -> LeaseRecord:
        """Write it for another holder."""
        return await self._write(record, {"acquireTime": _now(), "leaseTransitions": self._transitions + 1})

    async def renew(self, record: LeaseRecord) -> LeaseRecord:
        """Write it for the same holder, or for none."""
        return await self._write(record, {})

    async def _write(self, record: LeaseRecord, more: Mapping[str, Any]) -> LeaseRecord:
        body = {"metadata": {"resourceVersion": record.version}, "spec": {**_spec(record), **more}}
        call = Call("patch", LEASES, self._namespace, self._name, body=body, content_type=MERGE_PATCH)
        return self._record(await self._transport.send(call))

    def _record(self, body: Mapping[str, Any]) -> LeaseRecord:
        spec = body.get("spec") or {}
        self._transitions = int(spec.get("leaseTransitions") or 0)
        return LeaseRecord(
            holder=str(spec.get("holderIdentity") or ""),
            duration=float(spec.get("leaseDurationSeconds") or 0),
            version=str(body["metadata"]["resourceVersion"]),
        )


def _spec(record: LeaseRecord) -> dict[str, Any]:
    return {"holderIdentity": record.holder, "leaseDurationSeconds": round(record.duration), "renewTime": _now()}


def _now() -> str:
    """For people: nobody here goes by another machine's clock."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

"""LubanHosts as node agents write them."""

from __future__ import annotations

from typing import Any

from luban.core.times import rfc3339

NOW = 1_800_000_000.0
SINCE = rfc3339(NOW - 3600)


def bond(name: str = "bond0", verdict: str = "Healthy", **fields: Any) -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "since": SINCE, "mode": "802.3ad", "active": 2, "total": 2, **fields}


def body(
    *bonds: dict[str, Any], node: str = "host-b", primary: str | None = None, at: float | None = NOW, **status: Any
) -> dict[str, Any]:
    bonds = bonds or (bond(),)
    first = next((it for it in bonds if it["name"] == primary), bonds[0])
    summary = {key: first[key] for key in ("name", "verdict", "mode", "active", "total", "since")}
    written = {
        "bond": {**summary, "ports": f"{first['active']}/{first['total']}"},
        "bonds": list(bonds),
        **({"lastReport": rfc3339(at)} if at is not None else {}),
        **status,
    }
    return {"metadata": {"name": node}, "spec": {}, "status": written}

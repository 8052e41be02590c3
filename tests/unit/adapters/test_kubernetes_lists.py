"""Lists: page by page, and where the API server cannot select by a field."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.adapters.kubernetes_api.calls import CLUSTERS, VMS, Call
from luban.adapters.kubernetes_api.lists import PAGE, census, everything, selected
from luban.errors import PermanentError


def vm(name: str, host: str = "host-b", cluster: str = "shop") -> dict[str, Any]:
    """A LubanVM as a list has it."""
    return {
        "metadata": {"name": name, "namespace": "a", "uid": f"uid-{name}"},
        "spec": {"host": host, "clusterName": cluster},
    }


class Server:
    """Has some objects, and selects by some fields alone."""

    def __init__(self, *items: dict[str, Any], selects: tuple[str, ...] = ()) -> None:
        self.items, self.selects = list(items), selects
        self.sent: list[Call] = []

    async def send(self, call: Call) -> dict[str, Any]:
        """See Sends."""
        self.sent.append(call)
        field, _, value = call.query.get("fieldSelector", "").partition("=")
        if field and field not in self.selects:
            raise PermanentError("BadRequest", f"field label not supported: {field}")
        if field:
            return {"items": [it for it in self.items if it["spec"][field.removeprefix("spec.")] == value]}
        if call.resource == CLUSTERS:
            return {"items": [{"metadata": {"name": "shop", "namespace": "a", "uid": "c"}}], "metadata": {}}
        start = int(call.query.get("continue") or 0)
        rest = {"continue": str(start + 1)} if start + 1 < len(self.items) else {}
        return {"items": self.items[start : start + 1], "metadata": rest}


async def test_all_pages_are_read() -> None:
    server = Server(*map(vm, "xyz"))
    assert [body async for body in everything(server, VMS)] == server.items
    assert [call.query for call in server.sent] == [
        {"limit": str(PAGE)},
        {"limit": str(PAGE), "continue": "1"},
        {"limit": str(PAGE), "continue": "2"},
    ]


async def test_the_api_server_selects_where_it_can() -> None:
    server = Server(vm("x"), vm("y", "host-c"), selects=("spec.host",))
    assert await selected(server, Call("list", VMS, "", may_lag=True), "spec.host", "host-c", set()) == [
        vm("y", "host-c")
    ]
    assert [call.may_lag for call in server.sent] == [True]


@pytest.mark.parametrize(("field", "value", "found"), [("spec.host", "host-c", "y"), ("spec.clusterName", "shop", "x")])
async def test_with_crds_of_an_earlier_version_we_select(field: str, value: str, found: str) -> None:
    server, told = Server(vm("x"), vm("y", "host-c", "other")), set[str]()
    with capture_logs() as logs:
        for _ in range(2):
            bodies = await selected(server, Call("list", VMS, "a"), field, value, told)
    assert [body["metadata"]["name"] for body in bodies] == [found]
    assert {call.namespace for call in server.sent} == {"a"}
    assert ["apply the CRDs" in it["event"] for it in logs] == [True], "once"


async def test_another_refusal_stays_one() -> None:
    class Refusing(Server):
        async def send(self, call: Call) -> dict[str, Any]:
            raise PermanentError("Forbidden", "no")

    with pytest.raises(PermanentError, match="no"):
        await selected(Refusing(), Call("list", VMS, "a"), "spec.host", "host-c", set())


async def test_a_census_has_all_vms_and_clusters() -> None:
    found = await census(Server(*map(vm, "xy")))
    assert (found.vms, found.clusters) == ({"uid-x", "uid-y"}, {("a", "shop")})

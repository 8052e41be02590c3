"""What the benchmarks' witnesses count, and what they pass on."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from bench.support.api_witness import ApiWitness, by_kind
from bench.support.rpc_witness import RpcWitness
from bench.writes import Phases

REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
CALL, REPLY = 0, 1
OPEN, ALL_STATS = 1, 344
FLAGS = b"\0\0\0\5"


def message(procedure: int, *, program: int = REMOTE, kind: int = CALL, body: bytes = b"") -> bytes:
    return struct.pack(">6I", program, 1, procedure, kind, 7, 0) + body


def text(value: bytes) -> bytes:
    """A text that may be missing, as libvirt's protocol has it."""
    return struct.pack(">II", 1, len(value)) + value + bytes(-len(value) % 4)


def witness() -> RpcWitness:
    return RpcWitness(Path("/daemon"), Path("/witness"))


def test_counts_calls_by_what_they_ask_for() -> None:
    seen = witness()
    for _ in range(2):
        seen.pass_through(message(ALL_STATS))
    seen.pass_through(message(999))
    assert seen.calls == {"getAllDomainStats": 2, "procedure 999": 1}


def test_counts_neither_keepalives_nor_what_is_no_call() -> None:
    seen = witness()
    seen.pass_through(message(1, program=KEEPALIVE))
    seen.pass_through(message(ALL_STATS, kind=REPLY))
    assert not seen.calls


def test_opens_the_test_driver_and_keeps_header_and_flags() -> None:
    asked = message(OPEN, body=text(b"qemu:///session") + FLAGS)
    assert witness().pass_through(asked) == message(OPEN, body=text(b"test:///default") + FLAGS)


def test_passes_everything_else_on_as_it_is() -> None:
    asked = message(ALL_STATS, body=b"whatever")
    assert witness().pass_through(asked) == asked


def entry(verb: str, resource: str, name: str = "", subresource: str = "", code: int = 200) -> dict[str, Any]:
    about = {"resource": resource, "name": name, "subresource": subresource}
    return {"verb": verb, "requestURI": "/x?y", "objectRef": about, "responseStatus": {"code": code}}


def read(*entries: dict[str, Any]) -> list[Any]:
    lines = "\n".join(json.dumps(it) for it in entries).encode()
    return list(ApiWitness(Path("/audit"), "operator", "luban-operator").read(lines))


def test_requests_are_told_apart_by_verb_and_subresource() -> None:
    found = read(entry("list", "lubanvms"), entry("patch", "lubanvms", "a", "status"), entry("list", "lubanvms"))
    assert by_kind(found) == {"list lubanvms": 2, "patch lubanvms/status": 1}
    assert [request.is_status_write for request in found] == [False, True, False]


def test_watches_and_the_operators_own_lease_do_not_count() -> None:
    ignored = entry("watch", "lubanvms"), entry("patch", "leases", "luban-operator")
    assert by_kind(read(*ignored, entry("get", "leases", "team-000-balancer-0"))) == {"get leases": 1}


def test_a_request_about_no_object_is_known_by_its_path() -> None:
    assert by_kind(read({"verb": "get", "requestURI": "/apis/luban.cloud?timeout=1"})) == {"get /apis/luban.cloud": 1}


async def test_a_transition_is_a_change_of_the_phase_alone() -> None:
    phases = Phases()

    def vm(uid: str, *phase: str) -> dict[str, Any]:
        return {"metadata": {"uid": uid}, "status": {"phase": phase[0]} if phase else {}}

    told = [("ADDED", vm("a")), ("MODIFIED", vm("a", "Pending")), ("MODIFIED", vm("a", "Ready"))]
    told += [("ADDED", vm("b", "Ready")), ("MODIFIED", vm("b", "Ready")), ("DELETED", vm("b", "Stopping"))]
    for event, body in told:
        await phases.take(event, body)
    assert phases.transitions == {"Pending to Ready": 1}

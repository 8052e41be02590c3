"""What a balancer is told: its settings and members, checked, as the operator writes and the agent reads them.

Nothing is ever escaped on its way into an httpd configuration. Every value is a checked number, an IP address, a name
made here, or matches an allow-list; anything else raises ValueError.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from luban.api.cluster import LubanClusterSpec
from luban.core.model import Member, MemberState

Method = Literal["byrequests", "bytraffic", "bybusyness"]

ExpectContinue = Literal["Answer", "Forward"]

SLOT_STEP = 16
"""Slots come in multiples of this, so that small changes of maxVMs need no reload."""
HIGHEST_PORT = 65535
HIGHEST_LOAD_FACTOR = 100
LONGEST_SECONDS = 86400
MOST_BYTES = 65_536
MOST_SESSIONS = 1_000_000

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_COOKIE = re.compile(r"[A-Za-z0-9_-]{0,63}")
"""httpd cuts a longer name of the balancer's cookie off, and nobody sticks (PROXY_BALANCER_MAX_STICKY_SIZE)."""
_PATH = re.compile(r"/[A-Za-z0-9._~/?&=%-]{0,255}")
_ROUTE = re.compile(r"[A-Za-z0-9_-]{1,60}")
_VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class BalancerSettings:
    """All that a balancer's configuration depends on except its members. Raises ValueError for a value not allowed."""

    cluster: str
    """Name of the LubanCluster."""
    method: Method
    """mod_proxy_balancer's lbmethod."""
    listen_address: str
    """IP address, without brackets. Empty: all."""
    listen_port: int
    """TCP port."""
    sticky_cookie: str
    """Name of the cookie that binds a client to its VM. Empty: none."""
    timeout_seconds: int
    """Longest wait for a VM's answer."""
    health_path: str
    """Path of the VM's readiness probe."""
    health_interval_seconds: int
    """Time between two health checks of a member."""
    health_timeout_seconds: int
    """A health check that has no answer after this time has failed."""
    slots: int
    """Slots to declare."""
    vm_port: int
    """TCP port of the service in the VMs."""
    requests_at_once: int = 1024
    """Requests that are served at once."""
    request_line_bytes: int = 8190
    """Longest request line. The defaults of this and the next two are httpd's, for documents of earlier operators."""
    header_field_bytes: int = 8190
    """Longest header field, with its name."""
    header_fields: int = 100
    """Most header fields of a request."""
    expect_continue: ExpectContinue = "Answer"
    """Who answers `Expect: 100-continue`: httpd, or the service."""
    sessions_per_address: int = 0
    """Most sessions that one address of clients counts for, per member. 0: any number."""
    metrics_path: str = ""
    """Path of the VMs' metrics, which clients do not get. Empty: none, as documents of earlier operators have it."""

    def __post_init__(self) -> None:
        check_text("cluster", _NAME, self.cluster)
        check_choice("method", get_args(Method), self.method)
        if self.listen_address != "":
            check_address("listen_address", self.listen_address)
        check_text("sticky_cookie", _COOKIE, self.sticky_cookie)
        check_text("health_path", _PATH, self.health_path)
        if self.metrics_path != "":
            check_text("metrics_path", _PATH, self.metrics_path)
        for name in ("listen_port", "vm_port", "slots"):
            check_number(name, getattr(self, name), HIGHEST_PORT)
        check_choice("expect_continue", get_args(ExpectContinue), self.expect_continue)
        for name in ("requests_at_once", "request_line_bytes", "header_field_bytes", "header_fields"):
            check_number(name, getattr(self, name), MOST_BYTES)
        check_number("sessions_per_address", self.sessions_per_address, MOST_SESSIONS, lowest=0)
        for name in ("timeout_seconds", "health_interval_seconds", "health_timeout_seconds"):
            check_number(name, getattr(self, name), LONGEST_SECONDS)


@dataclass(frozen=True)
class BalancerDocument:
    """The content of `balancer.json`."""

    settings: BalancerSettings
    members: tuple[Member, ...]
    version: str
    """Hash of settings and members."""


def settings_of(cluster_name: str, spec: LubanClusterSpec) -> BalancerSettings:
    """The settings of a cluster's balancers. Raises ValueError for what the API would not have admitted."""
    balancer, template = spec.balancer, spec.template.spec
    probe = template.readiness_probe
    return BalancerSettings(
        cluster=cluster_name,
        method=balancer.method,
        listen_address=_listen_address(balancer.listen.address),
        listen_port=balancer.listen.port,
        sticky_cookie=balancer.sticky_cookie,
        timeout_seconds=math.ceil(balancer.timeout.seconds),
        health_path=probe.http_get.path,
        health_interval_seconds=probe.period_seconds,
        health_timeout_seconds=probe.timeout_seconds,
        slots=slots_for(spec.scaling.max_vms + spec.pool.size),
        vm_port=template.port,
        requests_at_once=balancer.limits.requests_at_once,
        request_line_bytes=balancer.limits.request_line_bytes,
        header_field_bytes=balancer.limits.header_field_bytes,
        header_fields=balancer.limits.header_fields,
        expect_continue=balancer.expect_continue,
        sessions_per_address=balancer.sessions_per_address,
        # Whatever counts the sessions: the VMs publish their metrics all the same.
        metrics_path=spec.scaling.sessions.metric.path,
    )


def _listen_address(given: str) -> str:
    """The address to listen on; empty, which httpd takes as all, for 0.0.0.0 and [::] too."""
    bare = given.strip("[]")
    if not bare:
        return ""
    address = ipaddress.ip_address(bare)
    return "" if address.is_unspecified else str(address)


def slots_for(max_vms: int) -> int:
    """Slots for a cluster of at most `max_vms` VMs: each may be on its way out while its successor comes in."""
    return math.ceil((2 * max_vms + 2) / SLOT_STEP) * SLOT_STEP


def route_of(member: str) -> str:
    """Session route of a member: its name, or a hash of it where the name cannot be a route."""
    if _ROUTE.fullmatch(member):
        return member
    return "m-" + hashlib.sha256(member.encode()).hexdigest()[:32]


def document_json(settings: BalancerSettings, members: Sequence[Member]) -> str:
    """`balancer.json`: settings, members and the version, a hash of both."""
    content = [asdict(settings), [asdict(member) for member in members]]
    version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return encode_document(BalancerDocument(settings, tuple(members), version))


def encode_document(document: BalancerDocument) -> str:
    """A document as JSON."""
    return json.dumps(asdict(document), sort_keys=True, indent=1) + "\n"


def parse_balancer_json(text: str) -> BalancerDocument:
    """Read `balancer.json` back. Fields that are not known here (of a newer operator) are passed over.

    Raises ValueError for anything else that `document_json` would not have written.
    """
    try:
        content = json.loads(text)
        settings = settings_from(content["settings"])
        members = tuple(member_from(entry) for entry in content["members"])
        version = content["version"]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"balancer.json cannot be read: {error!r}") from error
    check_text("version", _VERSION, version)
    if len({member.name for member in members}) < len(members):
        raise ValueError("balancer.json names a member twice")
    return BalancerDocument(settings, members, version)


def settings_from(data: Mapping[str, Any]) -> BalancerSettings:
    """Settings from their JSON object. Raises ValueError, TypeError for one that is incomplete."""
    return BalancerSettings(**_known(BalancerSettings, data))


def member_from(data: Mapping[str, Any]) -> Member:
    """A member from its JSON object. Raises ValueError, TypeError for one that is incomplete or not allowed."""
    member = Member(**_known(Member, data))
    check_member(member)
    return member


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}


def check_member(member: Member) -> None:
    """Raises ValueError if a member must not be written into a configuration."""
    check_text("member", _NAME, member.name)
    check_address(f"address of member {member.name}", member.address)
    check_number(f"port of member {member.name}", member.port, HIGHEST_PORT)
    check_choice(f"state of member {member.name}", get_args(MemberState), member.state)
    check_number(f"load factor of member {member.name}", member.load_factor, HIGHEST_LOAD_FACTOR)


def check_text(what: str, allowed: re.Pattern[str], value: object) -> None:
    """Raises ValueError unless `value` is a string that matches `allowed` in full."""
    if not isinstance(value, str) or not allowed.fullmatch(value):
        raise ValueError(f"{what} {value!r} is not allowed: it must match {allowed.pattern}")


def check_choice(what: str, allowed: Collection[str], value: object) -> None:
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{what} {value!r} is not allowed: it must be one of {', '.join(allowed)}")


def check_number(what: str, value: object, highest: int, lowest: int = 1) -> None:
    """Raises ValueError unless `value` is a whole number from `lowest` to `highest`."""
    # type(), not isinstance(): True is an int to Python, and prints as a word.
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{what} {value!r} is not allowed: it must be a whole number from {lowest} to {highest}")


def check_address(what: str, value: object) -> None:
    """Raises ValueError unless `value` is an IP address of one machine, as `ipaddress` prints it."""
    try:
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{what} {value!r} is not allowed: it must be an IP address") from error
    # A zone (fe80::1%eth0) is free text.
    if address.is_multicast or address.is_unspecified or "%" in str(value) or value == "255.255.255.255":
        raise ValueError(f"{what} {value!r} is not allowed: it must be the address of one machine")

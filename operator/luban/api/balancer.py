"""spec.balancer of a LubanCluster: the Apache httpd in front of the VMs."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from luban.api.balancer_template import BalancerTemplate
from luban.api.common import IPV4, RULE, Model, remedy, rules
from luban.api.units import Duration

_LISTEN_REMEDY = "must be an address of one machine such as 192.0.2.10 or [2001:db8::10], or empty for all"
_BARE = "self.replace('[', '').replace(']', '')"
_LISTEN_RULE = (
    f"self == '' || (self.matches('^[0-9.]+$|^[[].*]$') && isIP({_BARE}) && ("
    + " || ".join(
        f"ip({_BARE}).{what}()" for what in ("isUnspecified", "isLoopback", "isGlobalUnicast", "isLinkLocalUnicast")
    )
    + "))"
)
_COOKIE_REMEDY = (
    "must be letters, digits, hyphens and underscores, or empty for no cookie, and not begin with __Host- or __Secure-, "
    "which browsers take over TLS only"
)
_COOKIE_PATTERN = r"^[A-Za-z0-9_-]*$"
_COOKIE_RULE = f"self.matches('{_COOKIE_PATTERN}') && !self.matches('^(?i:__(host|secure)-)')"


def _of_one_machine(value: str) -> str:
    """What _LISTEN_RULE says, for objects that are older than it."""
    try:
        address = ipaddress.ip_address(value.strip("[]") or "::")
    except ValueError as error:
        raise ValueError(_LISTEN_REMEDY) from error
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    if mapped or address.is_multicast or str(address) == "255.255.255.255":
        raise ValueError(_LISTEN_REMEDY)
    return value


def _kept_by_browsers(value: str) -> str:
    """What _COOKIE_RULE says, for objects that are older than it."""
    if value.lower().startswith(("__host-", "__secure-")):
        raise ValueError(_COOKIE_REMEDY)
    return value


class Drain(Model):
    """How to take a VM out of service."""

    timeout: Annotated[Duration, Duration.between("0s", "24h")] = Duration("60s")
    """Longest wait for requests in flight, WebSockets among them; then the VM is stopped all the same."""


class Listen(Model):
    """Where httpd listens."""

    address: Annotated[str, AfterValidator(_of_one_machine)] = Field(
        default="",
        pattern=rf"^$|^{IPV4}$|^\[[0-9a-fA-F:]+\]$",
        max_length=64,
        json_schema_extra={**remedy(_LISTEN_REMEDY), RULE: _LISTEN_RULE},
    )
    """IP address. Empty: all. A running httpd changes from one address to another, but not from one to all or back,
    unless the port changes too."""
    port: int = Field(default=8080, ge=1, le=65535)
    """TCP port."""


class Limits(Model):
    """How much httpd passes on. What is longer it refuses by itself: request lines with 414, headers of requests with
    400, headers of answers with 502. Bodies have no limit."""

    requests_at_once: int = Field(default=1024, ge=128, le=4096)
    """Requests that are served at once, each in a thread; each WebSocket and each event stream is one. Further ones wait."""
    request_line_bytes: int = Field(default=16_384, ge=1024, le=65_536)
    """Longest request line: method, path with query, and version."""
    header_field_bytes: int = Field(default=16_384, ge=1024, le=65_536)
    """Longest header field with its name, of requests and, from 8192 on, of answers."""
    header_fields: int = Field(default=100, ge=20, le=1000)
    """Most header fields of a request. Each request may keep so many of that length in httpd's memory."""


MOST_BALANCERS = 20
"""Balancers of one cluster."""


class Replicas(Model):
    """How many balancers there are: more for want of room to attach VMs, or in the place of one that is lost."""

    model_config = rules(
        (
            "self.min <= self.max",
            "balancer.replicas.min must not be above balancer.replicas.max: lower min or raise max",
        )
    )

    min: int = Field(default=1, ge=1, le=MOST_BALANCERS)
    """Balancers that are always there."""
    max: int = Field(default=1, ge=1, le=MOST_BALANCERS)
    """Balancers that there are at most. More than one needs attachment.mode Cross or Slice."""


class Attachment(Model):
    """Which balancers send requests to which VMs (ELBaaS, cross scheduling)."""

    mode: Literal["Cross", "Slice", "Single"] = "Single"
    """Cross: each VM is attached to p balancers, so that one may fail. Slice: each to one of several. Single: there is one
    balancer. With several, a sticky client that comes to a balancer without its VM gets another one there."""
    p: int = Field(default=2, ge=2, le=MOST_BALANCERS)
    """Balancers per VM with mode Cross. A balancer on the VM's own host comes after others that are as full."""
    d_max: int = Field(default=1000, ge=1, le=1000)
    """VMs that one balancer sends requests to at most."""


class Balancer(Model):
    """The Apache httpd in front of the VMs."""

    model_config = rules(
        (
            "self.attachment.mode != 'Single' || self.replicas.max == 1",
            "balancer.replicas.max above 1 needs balancer.attachment.mode Cross or Slice",
        ),
        (
            "self.attachment.mode != 'Cross' || self.attachment.p <= self.replicas.max",
            "balancer.attachment.p must not be above balancer.replicas.max: lower p or raise max",
        ),
    )

    replicas: Replicas = Replicas()
    """How many balancers there are."""
    attachment: Attachment = Attachment()
    """Which of them send requests to which VMs."""

    method: Literal["byrequests", "bytraffic", "bybusyness"] = "byrequests"
    """mod_proxy_balancer's lbmethod."""
    listen: Listen = Listen()
    """Where httpd listens."""
    sticky_cookie: Annotated[str, AfterValidator(_kept_by_browsers)] = Field(
        default="",
        pattern=_COOKIE_PATTERN,
        max_length=63,
        json_schema_extra={**remedy(_COOKIE_REMEDY), RULE: _COOKIE_RULE},
    )
    """Name of a cookie that binds a client to its VM, set by httpd: up to 63 characters, which is all that httpd keeps of it.
    Empty: none."""
    sessions_per_address: int = Field(default=0, ge=0, le=1_000_000)
    """With a sticky cookie: most sessions that clients of one address (IPv6: of one /64 network) count for on each VM. 0:
    any number, as it must be where another proxy or a NAT stands in front. Requests in flight count whoever sent them."""
    timeout: Annotated[Duration, Duration.between("1s", "24h")] = Duration("60s")
    """Longest wait for a VM's answer to begin, and for the next part of it; also for a WebSocket on which neither side
    says anything, if longer than 60s."""
    limits: Limits = Limits()
    """Sizes of what httpd passes on."""
    expect_continue: Literal["Answer", "Forward"] = "Answer"
    """Who answers clients that ask before they send a body (Expect: 100-continue). Answer: httpd, so that it works with
    every service. Forward: the VM, so that it can refuse a body before it is sent; each VM must then answer it."""
    load_factors: Literal["Static", "Adaptive"] = "Static"
    """Static: every VM gets the same share. Adaptive: shares follow the free sessions (Luban cloud, Fig. 3,
    lines 19-21)."""
    drain: Drain = Drain()
    """How a VM is taken out of service."""
    template: BalancerTemplate = BalancerTemplate()
    """How the balancers' Pods are made."""

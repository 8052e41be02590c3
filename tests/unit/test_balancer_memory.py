"""What the balancer's container may use is above what clients can make httpd use with the default limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from luban.api.balancer import Balancer, Limits
from luban.api.names import OPERATOR_USER
from luban.api.units import Quantity
from luban.render.balancer_objects import AgentProgram, balancer_objects

ROOT = Path(__file__).resolve().parents[2]
OF_ITS_OWN = 128 * 2**20
"""Bytes that httpd and the agent use without clients: what the container requests."""


def of_clients(limits: Limits) -> int:
    """The formula of docs/http.md, in bytes."""
    return (limits.header_fields * limits.header_field_bytes + limits.request_line_bytes) * limits.requests_at_once


def container() -> dict[str, Any]:
    objects = balancer_objects("default", "luban", Balancer(), 1, AgentProgram("luban-cloud", OPERATOR_USER))
    (found,) = next(it for it in objects if it["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_the_container_may_use_what_clients_can_make_httpd_use() -> None:
    resources = container()["resources"]
    assert Quantity(resources["requests"]["memory"]).bytes == OF_ITS_OWN
    assert Quantity(resources["limits"]["memory"]).bytes > of_clients(Limits()) + OF_ITS_OWN


def test_the_documented_figures_are_those_of_the_formula() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    default, most = (of_clients(it) / 2**30 for it in (Limits(), Limits(requests_at_once=4096)))
    assert re.findall(r"([0-9.]+) GiB (?:with the defaults|of requests)", page) == [f"{default:.1f}", f"{most:.1f}"]
    limit = Quantity(container()["resources"]["limits"]["memory"]).bytes / 2**30
    assert f"may use {limit:g} GiB" in page

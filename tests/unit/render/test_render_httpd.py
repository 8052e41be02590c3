"""httpd configurations: golden files, what must never reach them, and balancer.json there and back.

`LUBAN_UPDATE_GOLDEN=1 pytest tests/unit/render/test_render_httpd.py` writes the golden files anew; look
at the diff. That httpd takes them is shown in tests/integration/test_balancer_agent.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.api.balancer import Balancer
from luban.api.cluster import LubanClusterSpec
from luban.core.model import Member
from luban.render.balancer import check_member, route_of, slots_for
from luban.render.httpd import (
    AgentSettings,
    BalancerSettings,
    SlotLine,
    config_map_data,
    parse_balancer_json,
    plain_config,
    settings_of,
    slot_name,
    slotted_config,
)

GOLDEN = Path(__file__).parents[2] / "fixtures" / "httpd"
UPDATE = "LUBAN_UPDATE_GOLDEN" in os.environ
MEMBERS = (
    Member("shop-a", "192.0.2.11", 8080, "Enabled"),
    Member("shop-b", "192.0.2.12", 8080, "Draining", 40),
    Member("shop-c", "2001:db8::13", 8080, "Disabled"),
)
RUNTIME = AgentSettings("/run/luban", "127.0.0.1", 9181, "0123456789abcdef" * 2)
SLOTS = (
    SlotLine("s001", 8080, "shop-a", ""),
    SlotLine("s002", 8080, "shop-b", "DN", 40),
    SlotLine("s003", 8080, "_s003"),
)


def spec(metrics_path: str = "/metrics", **balancer: Any) -> LubanClusterSpec:
    """A cluster with these balancer fields."""
    return LubanClusterSpec.model_validate(
        {
            "hosts": [{"name": "host-b", "uri": "qemu:///system"}],
            "template": {"spec": {"image": {"volume": "luban-web.qcow2"}}},
            "scaling": {"minVMs": 1, "maxVMs": 3, "sessions": {"metric": {"path": metrics_path}}},
            "balancer": balancer,
        }
    )


DEFAULTS = settings_of("shop", spec())
EVERYTHING = settings_of(
    "shop",
    spec(
        metrics_path="/app//./m%65trics.txt",
        method="bybusyness",
        listen={"address": "[2001:db8::1]", "port": 8443},
        stickyCookie="LUBANID",
        timeout="1500ms",
        limits={"requestsAtOnce": 130, "requestLineBytes": 65_536, "headerFieldBytes": 1024, "headerFields": 1000},
        expectContinue="Forward",
        sessionsPerAddress=10,
    ),
)
CONFIGS = {
    "plain": lambda: plain_config(DEFAULTS, MEMBERS),
    "plain-empty": lambda: plain_config(DEFAULTS, ()),
    "plain-everything": lambda: plain_config(EVERYTHING, MEMBERS),
    "slotted": lambda: slotted_config(DEFAULTS, SLOTS, RUNTIME),
    "slotted-everything": lambda: slotted_config(
        EVERYTHING, SLOTS, replace(RUNTIME, listen_address="127.0.16.2", stop_seconds=5)
    ),
}
NUMBERS = (
    *("listen_port", "vm_port", "slots", "timeout_seconds", "health_interval_seconds", "health_timeout_seconds"),
    *("requests_at_once", "request_line_bytes", "header_field_bytes", "header_fields"),
)
NASTY = ("a b", "a\nb", 'a"b', "a'b", "<b>", "${X}", "%{X}e", "a\0b", "ä", "a#b", "\\", "", None, 5, True)


@pytest.mark.parametrize("name", CONFIGS)
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.conf"
    text = CONFIGS[name]()
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CONFIGS)


def test_settings_come_from_the_spec() -> None:
    assert (
        BalancerSettings(
            cluster="shop",
            method="bybusyness",
            listen_address="2001:db8::1",
            listen_port=8443,
            sticky_cookie="LUBANID",
            timeout_seconds=2,
            health_path="/healthz",
            health_interval_seconds=2,
            health_timeout_seconds=2,
            slots=16,
            vm_port=8080,
            requests_at_once=130,
            request_line_bytes=65_536,
            header_field_bytes=1024,
            header_fields=1000,
            expect_continue="Forward",
            sessions_per_address=10,
            metrics_path="/app//./m%65trics.txt",
        )
        == EVERYTHING
    )
    assert DEFAULTS.metrics_path == "/metrics", "also where httpd counts the sessions"


@pytest.mark.parametrize(("max_vms", "slots"), [(1, 16), (7, 16), (8, 32), (15, 32), (500, 1008)])
def test_slots_leave_room_for_a_successor_of_every_vm(max_vms: int, slots: int) -> None:
    assert slots_for(max_vms) == slots


def test_a_health_path_too_long_for_httpd_is_left_to_the_agent() -> None:
    assert "hcmethod" in plain_config(replace(DEFAULTS, health_path="/" + "a" * 62), MEMBERS)
    assert "hcmethod" not in plain_config(replace(DEFAULTS, health_path="/" + "a" * 63), MEMBERS)


class TestAllowList:
    """Values that are not plainly harmless are refused, never escaped."""

    @pytest.mark.parametrize(
        "field",
        ["cluster", "method", "listen_address", "sticky_cookie", "health_path", "metrics_path", "expect_continue"],
    )
    @pytest.mark.parametrize("value", NASTY)
    def test_settings(self, field: str, value: Any) -> None:
        if value == "" and field in ("listen_address", "sticky_cookie", "metrics_path"):
            return
        with pytest.raises(ValueError, match="not allowed"):
            replace(DEFAULTS, **{field: value})

    def test_a_cookie_that_httpd_would_cut_off(self) -> None:
        assert len(replace(DEFAULTS, sticky_cookie="c" * 63).sticky_cookie) == 63
        with pytest.raises(ValueError, match="not allowed"):
            replace(DEFAULTS, sticky_cookie="c" * 64)
        with pytest.raises(ValueError, match="63"):
            Balancer.model_validate({"stickyCookie": "c" * 64})

    @pytest.mark.parametrize("field", NUMBERS)
    @pytest.mark.parametrize("value", [0, -1, 10**6, 1.5, "80", True, None])
    def test_numbers(self, field: str, value: Any) -> None:
        with pytest.raises(ValueError, match="whole number"):
            replace(DEFAULTS, **{field: value})

    @pytest.mark.parametrize("field", ["name", "address", "state"])
    @pytest.mark.parametrize("value", NASTY)
    def test_members(self, field: str, value: Any) -> None:
        with pytest.raises(ValueError, match="not allowed"):
            check_member(replace(MEMBERS[0], **{field: value}))

    @pytest.mark.parametrize(
        "address",
        [
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "fe80::1%eth0",
            "127.1",
            "010.0.0.1",
            "[::1]",
            "host",
        ],
    )
    def test_addresses(self, address: str) -> None:
        with pytest.raises(ValueError, match="not allowed"):
            check_member(replace(MEMBERS[0], address=address))

    @pytest.mark.parametrize("value", NASTY)
    def test_runtime_and_slots(self, value: Any) -> None:
        for field in ("folder", "secret", "manager_address"):
            with pytest.raises(ValueError, match="not allowed"):
                replace(RUNTIME, **{field: value})
        for field in ("name", "route"):
            with pytest.raises(ValueError, match="not allowed"):
                replace(SLOTS[0], **{field: value})

    @given(st.text(max_size=70))
    def test_routes(self, name: str) -> None:
        route = route_of(name)
        assert SlotLine(slot_name(1), 80, route).route == route

    @given(st.text(max_size=70))
    def test_no_text_gets_in_through_a_member(self, text: str) -> None:
        before = plain_config(DEFAULTS, ())
        try:
            after = plain_config(DEFAULTS, [Member(text, "192.0.2.1", 80, "Enabled")])
        except ValueError:
            return
        added = set(after.splitlines()) - set(before.splitlines())
        assert len(added) == 1
        assert added.pop().lstrip().startswith("BalancerMember http://192.0.2.1:80 route=")


class TestDocument:
    """balancer.json."""

    def test_there_and_back(self) -> None:
        document = parse_balancer_json(config_map_data(EVERYTHING, MEMBERS)["balancer.json"])
        assert (document.settings, document.members) == (EVERYTHING, MEMBERS)

    def test_version_follows_settings_and_members_alone(self) -> None:
        def version(settings: BalancerSettings, members: tuple[Member, ...]) -> str:
            return parse_balancer_json(config_map_data(settings, members)["balancer.json"]).version

        versions = {
            version(DEFAULTS, MEMBERS),
            version(EVERYTHING, MEMBERS),
            version(DEFAULTS, MEMBERS[:2]),
            version(DEFAULTS, (replace(MEMBERS[0], load_factor=2), *MEMBERS[1:])),
        }
        assert len(versions) == 4
        assert version(DEFAULTS, MEMBERS) == version(replace(DEFAULTS), tuple(replace(one) for one in MEMBERS))

    def test_what_a_newer_operator_adds_is_passed_over(self) -> None:
        content = json.loads(config_map_data(DEFAULTS, MEMBERS)["balancer.json"])
        content["settings"]["fresh"] = 1
        content["members"][0]["fresh"] = 1
        content["fresh"] = 1
        assert parse_balancer_json(json.dumps(content)).members == MEMBERS

    def test_an_earlier_operators_document_hides_nothing(self) -> None:
        content = json.loads(config_map_data(DEFAULTS, MEMBERS)["balancer.json"])
        del content["settings"]["metrics_path"]
        assert parse_balancer_json(json.dumps(content)).settings == replace(DEFAULTS, metrics_path="")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            "null",
            "[" * 100_000,
            '{"settings":' * 100_000,
            '{"version": "0123456789abcdef", "settings": {}, "members": []}',
            '{"version": "0123456789abcdef", "settings": [], "members": []}',
        ],
    )
    def test_what_cannot_be_read(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"balancer\.json"):
            parse_balancer_json(text)

    @pytest.mark.parametrize("version", ["", "x" * 16, 5, None, "0123456789ABCDEF"])
    def test_versions_that_no_operator_writes(self, version: Any) -> None:
        content = {"version": version, "settings": asdict(DEFAULTS), "members": []}
        with pytest.raises(ValueError, match="version"):
            parse_balancer_json(json.dumps(content))

    def test_a_member_named_twice(self) -> None:
        with pytest.raises(ValueError, match="twice"):
            parse_balancer_json(config_map_data(DEFAULTS, (MEMBERS[0], MEMBERS[0]))["balancer.json"])

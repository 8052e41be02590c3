"""Which hosts a cluster may use: each refusal with its sentence, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.api.cluster import LubanClusterSpec
from luban.api.libvirt_host import LibvirtHost
from luban.core.usable_hosts import (
    FEW,
    Applicant,
    HostPolicy,
    Registered,
    Unreadable,
    UsableHosts,
    outside,
    usable_hosts,
)

B, C = "qemu+tls://host-b/system", "qemu+tls://host-c/system"


def spec_with(*hosts: dict[str, Any], pool: str = "default", **network: str) -> LubanClusterSpec:
    image = {"volume": "web.qcow2", "pool": pool}
    template = {"image": image, "network": network or {"type": "Bridge", "source": "br0"}}
    return LubanClusterSpec.model_validate({"hosts": hosts, "template": {"spec": template}})


def host(name: str = "host-b", uri: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "uri": uri, **more}


def known(uri: str = B, **limits: Any) -> Registered:
    return {"host-b": LibvirtHost(uri=uri, **limits)}


def sort(
    spec: LubanClusterSpec,
    registered: Registered,
    *,
    namespace: str = "team-a",
    policy: HostPolicy = "Any",
    in_use: dict[str, list[str]] | None = None,
) -> UsableHosts:
    return usable_hosts(spec, registered, Applicant(namespace, in_use or {}), policy)


BOTH: tuple[HostPolicy, ...] = ("Any", "Registered")
ALL = {"pools": ("default",), "networks": ("br0",), "cidr": "10.20.0.0/16", "namespaces": ("team-a",)}


@pytest.mark.parametrize("policy", BOTH)
@pytest.mark.parametrize("limits", [{}, ALL])
@pytest.mark.parametrize("uri", ["", B])
def test_a_registered_host_is_used_where_it_is(policy: HostPolicy, limits: dict[str, Any], uri: str) -> None:
    found = sort(spec_with(host(uri=uri)), known(**limits), policy=policy)
    assert (found.uris, found.refusals) == ({"host-b": B}, {})


def test_one_that_says_itself_where_it_is_needs_no_other_word() -> None:
    spec = spec_with(host(uri=B), host("host-c", C))
    found = sort(spec, {})
    assert found.uris == {"host-b": B, "host-c": C}
    assert found.fill(spec) is spec


REFUSED: list[tuple[str, dict[str, Any], Registered, dict[str, Any], str, str]] = [
    (
        "nobody says where",
        host(),
        {},
        {},
        "HostNotRegistered",
        "there is no LubanHost host-b with spec.libvirt: an administrator has to make it, or give hosts[].uri",
    ),
    (
        "nobody may say where but an administrator",
        host(),
        {},
        {"policy": "Registered"},
        "HostNotRegistered",
        "there is no LubanHost host-b with spec.libvirt: an administrator has to make it",
    ),
    (
        "only the cluster says where",
        host(uri=B),
        {"host-c": LibvirtHost(uri=B)},
        {"policy": "Registered"},
        "InlineURIRefused",
        "there is no LubanHost host-b with spec.libvirt, and the operator takes no others (--hosts=Registered): "
        "an administrator has to make it, with this host's URI",
    ),
    (
        "both say something else",
        host(uri=C),
        known(),
        {},
        "HostURIDiffers",
        f"hosts[].uri is {C}, but LubanHost host-b says {B}: leave hosts[].uri out, or give the host another name",
    ),
    (
        "another transport has other rights",
        host(uri="qemu+ssh://root@host-b/system"),
        known("qemu+ssh://luban@host-b/system"),
        {},
        "HostURIDiffers",
        "LubanHost host-b says qemu+ssh://luban@host-b/system",
    ),
    (
        "a certificate that is not looked at",
        host(uri=f"{B}?no_verify=1"),
        known(),
        {},
        "HostURIDiffers",
        "leave hosts[].uri out",
    ),
    (
        "for others",
        host(uri=C),
        known(namespaces=("team-b", "team-c")),
        {},
        "NamespaceNotAllowed",
        "LubanHost host-b is not for namespace team-a: take another host, or have an administrator add the namespace "
        "to its spec.libvirt.namespaces",
    ),
    (
        "another pool",
        host(),
        known(pools=("fast", "large")),
        {},
        "PoolNotAllowed",
        "LubanHost host-b does not offer storage pool default, only fast, large: change template.spec.image.pool, or "
        "have an administrator add it to its spec.libvirt.pools",
    ),
    (
        "another network",
        host(),
        known(networks=("br7",)),
        {},
        "NetworkNotAllowed",
        "LubanHost host-b does not offer network br0, only br7: change template.spec.network.source, or have an "
        "administrator add it to its spec.libvirt.networks",
    ),
    (
        "its VMs are elsewhere",
        host(),
        known(),
        {"in_use": {"host-b": [C]}},
        "HostURIDiffers",
        f"VMs of this cluster are on host-b at {C}, which is {B} now: put back the URI, or cordon the host until they "
        "have moved",
    ),
    (
        "its VMs are elsewhere, and it was never registered",
        host(uri=B),
        {},
        {"in_use": {"host-b": [B, C]}},
        "HostURIDiffers",
        f"at {C}, which is {B} now",
    ),
    (
        "a limit that is not understood",
        host(uri=B),
        {"host-b": Unreadable("cidr: must be an IPv4 network")},
        {},
        "HostUnreadable",
        "spec.libvirt of LubanHost host-b cannot be read: cidr: must be an IPv4 network",
    ),
]


@pytest.mark.parametrize(
    ("entry", "registered", "more", "reason", "words"), [case[1:] for case in REFUSED], ids=[it[0] for it in REFUSED]
)
def test_refused(entry: dict[str, Any], registered: Registered, more: dict[str, Any], reason: str, words: str) -> None:
    spec = spec_with(entry, host("host-z", "qemu:///system"))
    found = sort(spec, {**registered, "host-z": LibvirtHost(uri="qemu:///system")}, **more)
    assert found.refusals["host-b"].reason == reason
    assert words in found.refusals["host-b"].message
    assert found.uris == {"host-z": "qemu:///system"}, "each host by itself"
    assert [it.uri for it in found.fill(spec).hosts] == ["", "qemu:///system"]


def test_who_may_not_use_a_host_is_not_told_where_it_is() -> None:
    (refusal,) = sort(spec_with(host(uri=C)), known(namespaces=("team-b",))).refusals.values()
    assert B not in refusal.message
    assert "team-b" not in refusal.message


class TestUserNetwork:
    """Its addresses are those of the host entry's forwardRange, and it has no name."""

    ENTRY = host(forwardRange="127.0.17.0/24")

    @pytest.mark.parametrize("limits", [{}, {"cidr": "127.0.0.0/8"}, {"cidr": "127.0.17.9/24"}])
    def test_within(self, limits: dict[str, str]) -> None:
        assert sort(spec_with(self.ENTRY, type="User"), known(**limits)).refusals == {}

    @pytest.mark.parametrize("limits", [{"networks": ("br0",)}, {"cidr": "10.0.0.0/8"}, {"cidr": "127.0.17.0/25"}])
    def test_without(self, limits: dict[str, Any]) -> None:
        (refusal,) = sort(spec_with(self.ENTRY, type="User"), known(**limits)).refusals.values()
        assert refusal.reason == "NetworkNotAllowed"


def test_of_two_entries_for_one_daemon_the_first_counts() -> None:
    spec = spec_with(host("host-c", C), host("host-b"), host("host-d", "qemu://HOST-B:16514/system"))
    found = sort(spec, known())
    assert found.uris == {"host-c": C, "host-b": B}
    assert found.refusals["host-d"].reason == "HostListedTwice"
    assert "the same libvirt daemon as host-b" in found.refusals["host-d"].message


def test_a_uri_stands_as_the_vms_have_it() -> None:
    """So that what is done with a VM, and what is seen of it, goes over one connection."""
    written = "qemu://host-b:16514/system"
    assert sort(spec_with(host(uri=B)), known(), in_use={"host-b": [written]}).uris == {"host-b": written}


def test_long_lists_are_told_in_part() -> None:
    pools = tuple(f"pool-{number}" for number in range(60))
    (refusal,) = sort(spec_with(host()), known(pools=pools)).refusals.values()
    assert f"only {', '.join(pools[:FEW])}, ...:" in refusal.message


NAMES = ("host-b", "host-c", "host-d")
URIS = (B, C, "qemu://host-b/system", "qemu:///system")


@given(
    given_uris=st.lists(st.sampled_from(("", *URIS)), min_size=3, max_size=3),
    registered=st.dictionaries(
        st.sampled_from(NAMES),
        st.builds(
            LibvirtHost,
            uri=st.sampled_from(URIS),
            pools=st.sampled_from(((), ("default",), ("other",))),
            networks=st.sampled_from(((), ("br0",), ("br1",))),
            namespaces=st.sampled_from(((), ("team-a",), ("team-b",))),
        ),
    ),
    in_use=st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(URIS), max_size=2)),
    policy=st.sampled_from(BOTH),
)
def test_each_host_is_used_or_refused_and_never_against_a_word(
    given_uris: list[str], registered: Registered, in_use: dict[str, list[str]], policy: HostPolicy
) -> None:
    spec = spec_with(*(host(name, uri) for name, uri in zip(NAMES, given_uris, strict=True)))
    found = sort(spec, registered, policy=policy, in_use=in_use)
    assert found.uris.keys() ^ found.refusals.keys() == set(NAMES)
    filled = {it.name: it.uri for it in found.fill(spec).hosts}
    assert {name for name, uri in filled.items() if uri} == found.uris.keys()
    for name in found.uris:
        limits = registered.get(name)
        assert limits is not None or policy == "Any"
        if isinstance(limits, LibvirtHost):
            assert not limits.namespaces or "team-a" in limits.namespaces
            assert not limits.pools or "default" in limits.pools
            assert not limits.networks or "br0" in limits.networks


@pytest.mark.parametrize(
    ("address", "cidr", "expected"),
    [
        ("10.20.3.4", "10.20.0.0/16", False),
        ("10.21.3.4", "10.20.0.0/16", True),
        ("10.20.3.4", "10.20.7.7/16", False),
        ("8.8.8.8", "0.0.0.0/0", False),
        ("8.8.8.8", "", False),
        ("", "10.20.0.0/16", False),
        ("nonsense", "10.20.0.0/16", True),
        ("::1", "10.20.0.0/16", True),
    ],
)
def test_outside(address: str, cidr: str, expected: bool) -> None:
    assert outside(address, cidr) == expected

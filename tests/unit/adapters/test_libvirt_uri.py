"""Which libvirt URIs are accepted: the API's pattern and the adapter's check agree, on listed and on invented ones."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from luban.adapters.libvirt_hosts.uri import check_uri, is_local, tcp_endpoint
from luban.api.cluster import Host
from luban.api.libvirt_host import LibvirtHost
from luban.api.libvirt_uri import ADDRESS, normal_form
from luban.errors import PermanentError
from luban.ports import HostRef

LOCAL = [
    "qemu:///system",
    "qemu:///session",
    "qemu+unix:///system",
    "qemu+unix:///session?socket=/var/lib/lab/hosts/host-b/run/libvirt/libvirt-sock",
    "qemu+unix:///session?socket=%2Frun%2flibvirt%2Flibvirt-sock&mode=direct",
    "qemu:///system?mode=legacy&socket=/run/a_b~c@d:e,f=g+h.i",
    "test:///default",
]
REMOTE = [
    "qemu://host-b/system",
    "qemu+tls://host-b/system",
    "qemu+tls://host-b.example.test:16514/system",
    "qemu+tls://192.0.2.10/session",
    "qemu+tls://[2001:db8::10]:16514/system",
    "qemu+tls://[::ffff:192.0.2.10]/system",
    f"qemu+tls://{'a' * 63}.{'b' * 63}/system",
    "qemu+ssh://3rd-host.7up/system",
    "qemu+ssh://6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab/system",
    "qemu+tls://host_b/system?no_verify=0",
    "qemu+ssh://root@host-b:2222/system",
    "qemu+ssh://host-b/system?mode=auto&no_verify=0",
    "qemu+libssh2://some.body@host-b/session?no_verify=0&mode=direct",
    "qemu+libssh://host-b/system",
]
INSECURE = [
    "qemu+tcp://host-b/system",
    "qemu+tcp://10.0.0.1:6379/system",
    "qemu+tcp://127.0.0.1/system",
    "qemu+tls://host-b/system?no_verify=1",
    "qemu://host-b/system?no_verify=1",
    "qemu+ssh://root@host-b/system?mode=auto&no_verify=1",
    "qemu+libssh2://host-b/system?no_verify=1",
]
REFUSED = {
    # Shell commands: libvirt pastes these into a command line of the host.
    "qemu+ssh://root@kvm1/system?socket=/x%27%3Btouch%20pwned%3B%27": "parameter socket",
    "qemu+ssh://root@host-b/system?socket=/tmp/x": "parameter socket",
    "qemu+libssh2://host-b/system?socket=/tmp/x": "parameter socket",
    "qemu+unix:///system?socket=/x%27%3Btouch%20pwned%3B%27": "parameter socket",
    "qemu:///system?socket=/a%00b": "parameter socket",
    "qemu:///system?socket=/a%0Ab": "parameter socket",
    "qemu:///system?socket=/a%20b": "parameter socket",
    "qemu:///system?socket=/a$(id)": "parameter socket",
    "qemu:///system?socket=/a%60id%60": "parameter socket",
    "qemu:///system?socket=/a%E2%80%AEb": "parameter socket",
    "qemu:///system?socket=/a%2": "hexadecimal",
    "qemu:///system?socket=run/libvirt-sock": "parameter socket",
    "qemu:///system?socket=": "parameter socket",
    "qemu:///system?socket": "parameter socket",
    "qemu+tls://host-b/system?socket=/x": "parameter socket",
    "qemu://host-b/system?socket=/x": "parameter socket",
    # Programs, files, and other things that only a client on this machine should choose.
    "qemu+ssh://host-b/system?command=/tmp/evil": "parameter command",
    "qemu+ssh://host-b/system?Command=/tmp/evil": "parameter Command",
    "qemu+ssh://host-b/system?%63ommand=/tmp/evil": "parameter %63ommand",
    "qemu+ssh://host-b/system?netcat=": "parameter netcat",
    "qemu+ssh://host-b/system?proxy=netcat": "parameter proxy",
    "qemu+ssh://host-b/system?keyfile=/etc/shadow": "parameter keyfile",
    "qemu+ssh://host-b/system?no_tty=1": "parameter no_tty",
    "qemu+ssh://host-b/system?no_sanity=1": "parameter no_sanity",
    "qemu+libssh2://host-b/system?known_hosts=/tmp/x": "parameter known_hosts",
    "qemu+libssh2://host-b/system?known_hosts_verify=ignore": "parameter known_hosts_verify",
    "qemu+libssh2://host-b/system?sshauth=password": "parameter sshauth",
    "qemu+tls://host-b/system?pkipath=/tmp/pki": "parameter pkipath",
    "qemu+tls://host-b/system?tls_priority=NONE": "parameter tls_priority",
    "qemu+tls://host-b/system?name=test:///etc/passwd": "parameter name",
    "qemu:///system?authfile=/etc/passwd": "parameter authfile",
    # Parameters twice, in another case, with another value, separated in another way.
    "qemu+tls://host-b/system?no_verify=0&no_verify=1": "more than once",
    "qemu+tls://host-b/system?no_verify=0&NO_VERIFY=1": "parameter NO_VERIFY",
    "qemu+tls://host-b/system?no_verify=2": "parameter no_verify",
    "qemu+tls://host-b/system?no_verify=%31": "parameter no_verify",
    "qemu+tls://host-b/system?no_verify": "parameter no_verify",
    "qemu+tls://host-b/system?mode=legacy": "parameter mode",
    "qemu:///system?mode=AUTO": "parameter mode",
    "qemu:///system?mode=auto&mode=auto": "more than once",
    "qemu:///system?mode=auto&": "parameter ",
    "qemu:///system?&mode=auto": "parameter ",
    "qemu:///system?": "parameter ",
    "qemu:///system?socket=/a;command=/tmp/evil": "only &",
    "qemu+tls://host-b/system#command=/tmp/evil": "no #",
    "qemu+tls://host-b/system#": "no #",
    # User, host, port.
    "qemu+ssh://-oProxyCommand=x/system": "host '-oProxyCommand=x'",
    "qemu+ssh://-oProxyCommand=x@host-b/system": "user '-oProxyCommand=x'",
    "qemu+ssh://a%3Bid@host-b/system": "user 'a%3Bid'",
    "qemu+ssh://a:secret@host-b/system": "user 'a:secret'",
    "qemu+ssh://@host-b/system": "user ''",
    "qemu+ssh://a@b@host-b/system": "host",
    "qemu+ssh://ho%73t/system": "host 'ho%73t'",
    "qemu+ssh://$(id)/system": "host '$(id)'",
    "qemu+ssh:///system": "host ''",
    "qemu+tls:///system": "host ''",
    "qemu+tls://root@host-b/system": "takes no user",
    "qemu://host-b:/system": "port ''",
    "qemu+tls://host-b:0/system": "port '0'",
    "qemu+tls://host-b:65536/system": "port '65536'",
    "qemu+tls://host-b:016514/system": "port '016514'",
    "qemu+tls://host-b:22x/system": "port '22x'",
    "qemu+tls://[::1/system": "host",
    "qemu+tls://[fe80::1%25eth0]/system": "host",
    "qemu+tls://[]/system": "host",
    "qemu+tls://[host-b]/system": "host",
    "qemu+tls://host..b/system": "host 'host..b'",
    "qemu+tls://host-b./system": "host 'host-b.'",
    "qemu+tls://.host-b/system": "host '.host-b'",
    "qemu+ssh://host.-b/system": "host 'host.-b'",
    f"qemu+libssh2://{'a' * 64}/system": "at most 63 characters",
    f"qemu+tls://host.{'a' * 64}.test/system": "at most 63 characters",
    "qemu+tls://[1.2.3]/system": "host",
    "qemu+tls://[::::]/system": "host",
    "qemu+tls://[1::2::3]/system": "host",
    "qemu+tls://[192.0.2.10]/system": "host",
    "qemu+tls://[::ffff:999.0.2.10]/system": "host",
    "qemu+tls://[12345::]/system": "host",
    "qemu+tls://999.1.1.1/system": "host '999.1.1.1'",
    "qemu+tcp://999.1/system": "host '999.1'",
    "qemu+tls://10.0.0.01/system": "host '10.0.0.01'",
    "qemu+tls://1/system": "host '1'",
    "qemu+unix://host-b/system": "for this machine",
    "qemu+unix://:22/system": "for this machine",
    # Path, driver, transport.
    "qemu:///embed?root=/tmp/x": "path '/embed'",
    "qemu+tls://host-b": "path ''",
    "qemu+tls://host-b/": "path '/'",
    "qemu+ssh://host-b/system%27": "path",
    "qemu+ssh://host-b/session/../system": "path",
    "qemu:////system": "path",
    "qemu:/system": "form",
    "test:///etc/passwd": "driver 'test'",
    "test+unix:///default": "driver 'test'",
    "test:///default?x": "driver 'test'",
    "esx://host-b/": "driver 'esx'",
    "QEMU+TLS://host-b/system": "driver 'QEMU'",
    "qemu+TLS://host-b/system": "transport 'TLS'",
    "qemu+ext:///system?command=/bin/sh": "transport 'ext'",
    "qemu+:///system": "transport ''",
    "qemu+ssh+tls://host-b/system": "transport 'ssh+tls'",
    "": "form",
    "host-b": "form",
    # Characters.
    " qemu:///system": "printable",
    "qemu:///system ": "printable",
    "qemu:///system\n": "printable",
    "qemu+tls://host-b/\tsystem": "printable",
    "qemu+tls://h\x00st/system": "printable",
    "qemu+tls://hôst/system": "printable",
    "qemu+tls://host\u200b/system": "printable",
}


def model_takes(make: Callable[[], object]) -> bool:
    try:
        make()
    except ValidationError:
        return False
    return True


def api_takes(uri: str) -> bool:
    """As a LubanHost's; a LubanCluster may leave it out."""
    taken = model_takes(lambda: LibvirtHost(uri=uri))
    assert model_takes(lambda: Host(name="host-b", uri=uri)) == (taken or not uri)
    return taken


def adapter_takes(uri: str) -> bool:
    try:
        check_uri(HostRef("host-b", uri), allow_insecure=True)
    except PermanentError:
        return False
    return True


@pytest.mark.parametrize("uri", LOCAL + REMOTE)
def test_usable(uri: str) -> None:
    check_uri(HostRef("host-b", uri))
    assert api_takes(uri)


@pytest.mark.parametrize("uri", REFUSED)
def test_refused(uri: str) -> None:
    with pytest.raises(PermanentError) as error:
        check_uri(HostRef("host-b", uri), allow_insecure=True)
    assert error.value.reason == "InvalidURI"
    assert REFUSED[uri] in error.value.message
    assert "host-b" in error.value.message
    assert not api_takes(uri)


@pytest.mark.parametrize("uri", INSECURE)
def test_what_anybody_can_answer_needs_the_operators_consent(uri: str) -> None:
    assert api_takes(uri)
    assert adapter_takes(uri)
    with pytest.raises(PermanentError) as error:
        check_uri(HostRef("host-b", uri))
    assert error.value.reason == "InsecureHost"
    assert "hosts[].uri" in error.value.message
    assert "--allow-insecure-hosts" in error.value.message


PIECES = sorted(
    {
        piece
        for uri in [*LOCAL, *REMOTE, *INSECURE, *REFUSED]
        for piece in re.split(r"((?<=[:/?&=@#])|(?=[:/?&=@#]))", uri)
    }
)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("qemu:///system?socket=/x&mode=auto&mode=auto")
def test_the_api_takes_what_the_adapter_takes(uri: str) -> None:
    assert api_takes(uri) == adapter_takes(uri)


@given(st.sampled_from(LOCAL + REMOTE + INSECURE), st.data())
def test_so_it_is_after_one_change(uri: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(uri)))
    changed = (
        uri[:place] + data.draw(st.sampled_from(PIECES) | st.characters()) + uri[place + data.draw(st.integers(0, 3)) :]
    )
    assert api_takes(changed) == adapter_takes(changed)


@given(st.lists(st.sampled_from(["::", ":", "1", "ab", "0:", "F:", ":2", "12345"]), max_size=14).map("".join))
def test_an_address_in_brackets_is_one(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        good = False
    else:
        good = True
    assert adapter_takes(f"qemu+tls://[{text}]/system") == good


@given(st.from_regex(ADDRESS, fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_any_host_that_is_accepted_can_be_asked_for(host: str) -> None:
    host.strip("[]").encode("idna")


@pytest.mark.parametrize(
    ("uri", "local"), [*((uri, True) for uri in LOCAL), *((uri, False) for uri in REMOTE + INSECURE)]
)
def test_whose_machine_is_it(uri: str, *, local: bool) -> None:
    assert is_local(HostRef("host-b", uri)) == local


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("qemu://host-b/system", ("host-b", 16514)),
        ("qemu+tls://[2001:db8::10]/system", ("2001:db8::10", 16514)),
        ("qemu+tcp://192.0.2.10:6379/system", ("192.0.2.10", 6379)),
        ("qemu+tcp://host-b/system", ("host-b", 16509)),
        ("qemu+libssh2://root@host-b/system", ("host-b", 22)),
        ("qemu+libssh://host-b:2222/system", ("host-b", 2222)),
        ("qemu+ssh://host-b/system", None),
        ("qemu:///system", None),
        ("test:///default", None),
    ],
)
def test_where_libvirt_will_connect_itself(uri: str, endpoint: tuple[str, int] | None) -> None:
    assert tcp_endpoint(HostRef("host-b", uri)) == endpoint


ALIKE = [
    [
        "qemu+tls://host-b/system",
        "qemu://host-b/system",
        "qemu+tls://HOST-B:16514/system",
        "qemu://host-b/system?no_verify=0",
    ],
    ["qemu:///system", "qemu+unix:///system", "qemu:///system?mode=auto"],
    ["qemu+unix:///session?socket=/run/a+b&mode=direct", "qemu:///session?mode=direct&socket=%2Frun%2fa%2Bb"],
    ["qemu+tcp://10.0.0.1/system", "qemu+tcp://10.0.0.1:16509/system"],
    ["qemu+tls://[fe80::0:1]/system", "qemu://[FE80::1]:16514/system"],
    ["qemu+libssh2://root@host-b/system", "qemu+libssh2://root@host-b:22/system?mode=auto&no_verify=0"],
]
"""URIs for which libvirt does the same, group by group."""


def test_what_libvirt_takes_for_the_same_has_one_normal_form() -> None:
    forms = [{normal_form(uri) for uri in group} for group in ALIKE]
    assert [len(it) for it in forms] == [1] * len(ALIKE)
    assert len(set.union(*forms)) == len(ALIKE)


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+tls://host-c/system",
        "qemu+tls://host-b/session",
        "qemu+tls://host-b:16515/system",
        "qemu+tls://host-b/system?no_verify=1",
        "qemu+ssh://host-b/system",
        "qemu+ssh://root@host-b/system",
        "qemu+ssh://host-b:22/system",
        "qemu+libssh://host-b/system",
        "qemu:///system",
        "test:///default",
        "qemu+tls://host-b/system?socket=/x",
        "",
    ],
)
def test_what_may_lead_elsewhere_or_with_other_rights_has_another(uri: str) -> None:
    assert normal_form(uri) != normal_form("qemu+tls://host-b/system")


def test_ssh_reads_a_file_of_its_own_that_may_name_another_port() -> None:
    assert normal_form("qemu+ssh://host-b/system") != normal_form("qemu+ssh://host-b:22/system")


@given(st.text() | st.sampled_from(list(REFUSED)))
def test_whatever_a_lubanvm_says_has_a_normal_form(uri: str) -> None:
    assert isinstance(normal_form(uri), str)


@given(st.sampled_from(LOCAL + REMOTE + INSECURE))
def test_the_normal_form_tells_no_less_than_the_adapter_uses(uri: str) -> None:
    """URIs of one form lead to one endpoint."""
    for other in LOCAL + REMOTE + INSECURE:
        if normal_form(uri) == normal_form(other):
            assert tcp_endpoint(HostRef("host-b", uri)) == tcp_endpoint(HostRef("host-b", other))

"""What libvirt's errors become. The codes, domains and texts here were seen with libvirt 9.0 and QEMU 7.2."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from luban.adapters.libvirt_hosts import errors
from luban.errors import HostUnreachable, LubanError, PermanentError, TemporaryError
from luban.ports import HostRef

HOST = HostRef("host-b", "qemu+unix:///session?socket=/run/x&mode=auto")


def raised(code: int, text: str, *, domain: int = libvirt.VIR_FROM_QEMU, int1: int = -1) -> libvirt.libvirtError:
    """A libvirtError as libvirt-python makes it."""
    error = libvirt.libvirtError("call() failed")
    error.err = (code, domain, text, libvirt.VIR_ERR_ERROR, None, None, None, int1, -1)
    error.args = (text,)
    return error


RPC = {"domain": libvirt.VIR_FROM_RPC}
INTERNAL, SYSTEM = libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (raised(INTERNAL, "connection closed due to keepalive timeout", **RPC), HostUnreachable, "HostUnreachable"),
        (raised(INTERNAL, "client socket is closed", **RPC), HostUnreachable, "HostUnreachable"),
        (
            raised(SYSTEM, "Cannot recv data: Connection reset by peer", int1=104, **RPC),
            HostUnreachable,
            "HostUnreachable",
        ),
        (raised(libvirt.VIR_ERR_INVALID_CONN, "invalid connection pointer"), HostUnreachable, "HostUnreachable"),
        (raised(libvirt.VIR_ERR_NO_NETWORK, "no network with matching name 'x'"), PermanentError, "NetworkNotFound"),
        (
            raised(SYSTEM, "Cannot get interface MTU on 'br9': No such device", int1=19),
            PermanentError,
            "NetworkNotFound",
        ),
        (raised(SYSTEM, "cannot extend file: No space left on device", int1=28), PermanentError, "StoragePoolFull"),
        (raised(INTERNAL, "qemu-img: o: No space left on device"), PermanentError, "StoragePoolFull"),
        (raised(INTERNAL, "Not enough free space in pool for volume 'o'"), PermanentError, "StoragePoolFull"),
        (raised(libvirt.VIR_ERR_NO_STORAGE_POOL, "no storage pool 'x'"), PermanentError, "PoolNotFound"),
        (
            raised(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "does not support virt type 'kvm'"),
            PermanentError,
            "DomainRefused",
        ),
        (raised(libvirt.VIR_ERR_XML_ERROR, "No PCI buses available", int1=28), PermanentError, "DomainRefused"),
        (raised(INTERNAL, "Unknown CPU model NoSuch", domain=libvirt.VIR_FROM_CPU), PermanentError, "DomainRefused"),
        (raised(INTERNAL, "qemu unexpectedly closed the monitor"), TemporaryError, "StartFailed"),
        (raised(libvirt.VIR_ERR_OPERATION_FAILED, "failed to start"), TemporaryError, "StartFailed"),
    ],
)
def test_translation_of_a_failed_start(error: libvirt.libvirtError, kind: type[LubanError], reason: str) -> None:
    ours = errors.translate(error, HOST, "start domain 'x'", errors.START_FAILED)
    assert type(ours) is kind
    assert ours.reason == reason
    assert ours.message.startswith(f"host host-b: start domain 'x': {error}")


def test_what_no_step_knows_better_is_temporary() -> None:
    ours = errors.translate(raised(INTERNAL, "boom"), HOST, "read domains")
    assert (type(ours), ours.reason) == (TemporaryError, "LibvirtError")


def test_the_original_is_chained() -> None:
    original = raised(INTERNAL, "boom")
    with pytest.raises(PermanentError) as caught, errors.doing(HOST, "define domain 'x'", errors.REFUSED):
        raise original
    assert caught.value.__cause__ is original


def test_qemus_timestamps_are_left_out_so_that_the_same_failure_has_the_same_words() -> None:
    text = "internal error: process exited: 2026-11-22T02:26:00.003202Z qemu-system-x86_64: no"
    ours = errors.translate(raised(INTERNAL, text), HOST, "start", errors.START_FAILED)
    assert ours.message == "host host-b: start: internal error: process exited: qemu-system-x86_64: no"


HELPER = """/usr/lib/qemu/qemu-bridge-helper --use-vnet --br=brnone --fd=31: failed to communicate with bridge helper:
stderr=failed to get mtu of bridge `brnone': No such device

: Transport endpoint is not connected"""


@pytest.mark.parametrize(
    "error",
    [
        raised(SYSTEM, "Cannot get interface MTU on 'brnone': No such device", int1=19),
        raised(SYSTEM, "Unable to add bridge brnone port vnet0: No such device", int1=19),
        raised(INTERNAL, "failed to add interface `tap0' to bridge `brnone': No such device"),
        raised(INTERNAL, HELPER),
    ],
)
def test_a_bridge_that_is_not_there_is_named_with_the_remedy(error: libvirt.libvirtError) -> None:
    ours = errors.translate(error, HOST, "start domain 'x'", errors.START_FAILED)
    assert (type(ours), ours.reason) == (PermanentError, "NetworkNotFound")
    assert ours.message.endswith("; network.source: brnone is no bridge on the host: create it or name another")
    assert "\n" not in ours.message


def test_a_bridge_that_a_session_daemon_may_not_use() -> None:
    ours = errors.translate(raised(INTERNAL, "stderr=access denied by acl file\n"), HOST, "start", errors.START_FAILED)
    assert (ours.reason, "/etc/qemu/bridge.conf" in ours.message) == ("StartFailed", True)


@pytest.mark.parametrize("words", ["a\n\tb\r\n  c", "qemu: " + "usage\n" * 1000])
def test_what_libvirt_says_is_one_line_of_bounded_length(words: str) -> None:
    for ours in (
        errors.translate(raised(INTERNAL, words), HOST, "start", errors.START_FAILED),
        errors.not_opened(raised(INTERNAL, words), HOST),
        errors.not_opened(raised(libvirt.VIR_ERR_NO_CONNECT, words), HOST),
        errors.address_taken(HOST, "x", "127.0.0.1:1", raised(INTERNAL, words)),
        errors.unexpected(HOST, "start", ValueError(words), about_host=False),
    ):
        assert "\n" not in ours.message
        assert "  " not in ours.message
        assert len(ours.message) < errors.LONGEST_QUOTE + 300
    assert len(errors.quoted(ValueError(words))) <= errors.LONGEST_QUOTE


def failing(error: libvirt.libvirtError) -> Any:
    """A call that raises it."""

    def call(*_args: object) -> object:
        raise error

    return call


def test_lookups() -> None:
    assert errors.find(lambda name: name, "x") == "x"
    assert errors.find(failing(raised(libvirt.VIR_ERR_NO_DOMAIN, "Domain not found")), "x") is None
    assert errors.find(failing(raised(libvirt.VIR_ERR_NO_DOMAIN_METADATA, "metadata not found"))) is None
    with pytest.raises(libvirt.libvirtError):
        errors.find(failing(raised(INTERNAL, "boom")))


def test_attempts_give_up_quietly_except_on_a_lost_connection() -> None:
    assert errors.attempt(failing(raised(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "not connected"))) is None
    with pytest.raises(libvirt.libvirtError):
        errors.attempt(failing(raised(INTERNAL, "client socket is closed", **RPC)))


def test_unsupported_flags_fall_back() -> None:
    unsupported = failing(raised(libvirt.VIR_ERR_INVALID_ARG, "unsupported flags (0x1)"))
    assert errors.first_supported(unsupported, unsupported, lambda: "plain") == "plain"
    with pytest.raises(libvirt.libvirtError):
        errors.first_supported(failing(raised(INTERNAL, "boom")), lambda: "plain")
    assert not errors.is_supported(failing(raised(libvirt.VIR_ERR_NO_SUPPORT, "virConnectSetKeepAlive")))
    lost = raised(libvirt.VIR_ERR_NO_SUPPORT, "virConnectSetKeepAlive() failed")
    lost.err = None
    assert not errors.is_supported(failing(lost))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (raised(SYSTEM, "Connection refused", int1=111, **RPC), "HostUnreachable"),
        (raised(SYSTEM, "Unable to resolve address 'host-b' service '16514'", **RPC), "HostUnreachable"),
        (raised(SYSTEM, "Cannot read CA certificate", int1=2, **RPC), "HostUnreachable"),
        (raised(libvirt.VIR_ERR_AUTH_FAILED, "authentication failed", **RPC), "HostUnreachable"),
        (raised(libvirt.VIR_ERR_NO_CONNECT, "no connection driver available", domain=0), "InvalidURI"),
        (raised(libvirt.VIR_ERR_INVALID_ARG, "transport in URL not recognised", domain=13), "InvalidURI"),
        (raised(INTERNAL, "Unable to parse URI ::", domain=libvirt.VIR_FROM_URI), "InvalidURI"),
    ],
)
def test_opening(error: libvirt.libvirtError, reason: str) -> None:
    ours = errors.not_opened(error, HOST)
    assert ours.reason == reason
    assert "host-b" in ours.message
    assert HOST.uri in ours.message
    assert str(error) in ours.message


@pytest.mark.parametrize(
    "text",
    [
        "process exited: qemu-system-x86_64: -netdev user,id=luban0,hostfwd=tcp:127.0.18.2:8080-:8080: "
        "Could not set up host forwarding rule 'tcp:127.0.18.2:8080-:8080'",
        "qemu-system-x86_64: could not set up host forwarding rule 'tcp:127.0.18.2:8080-:8080': Address already in use",
    ],
)
def test_an_address_that_somebody_else_has_is_told_from_other_failures(text: str) -> None:
    error = raised(INTERNAL, text)
    assert errors.taken_forward(error) == "127.0.18.2:8080"
    ours = errors.address_taken(HOST, "shop_luban-x7", "127.0.18.2:8080", error)
    assert ours.reason == "AddressTaken"
    for part in ("host-b", "shop_luban-x7", "127.0.18.2:8080", "hosts[].forwardRange"):
        assert part in ours.message
    assert errors.taken_forward(raised(INTERNAL, "qemu unexpectedly closed the monitor")) == ""


def test_remedies_can_be_pasted_into_a_shell() -> None:
    message = errors.image_not_found(HOST, "default", "web.qcow2").message
    assert "virsh -c 'qemu+unix:///session?socket=/run/x&mode=auto' vol-upload --pool default web.qcow2 FILE" in message

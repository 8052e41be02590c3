"""What several kinds of tests share: a real control plane with Luban's API, started once for a run."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from lab.balancer_objects import apply_balancer_objects
from lab.binaries import ensure_binaries
from lab.controlplane import API_PORT, ETCD_PEER_PORT, ETCD_PORT, ControlPlane
from lab.paths import Layout
from lab.process import LabError, wait_until

# The same examples in every run: what CI finds is found again. LUBAN_HYPOTHESIS=long looks for new ones.
settings.register_profile("long", deadline=None)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("quick", derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("LUBAN_HYPOTHESIS") or "repeatable")

ROOT = Path(__file__).resolve().parent.parent
BASES = range(80, 120, 4)
"""Third octets for the control plane of one run; the first that nobody uses is taken."""
_numbers = itertools.count(1)


def pytest_sessionstart() -> None:
    """Say that there is no event loop yet.

    looptime asks for the current loop even in tests without one; asyncio would then make a loop that nobody closes,
    and warnings are errors here.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, for the whole run. The first start on a machine builds them: minutes."""
    with ExitStack() as stack:
        base = stack.enter_context(_free_base())
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="luban-")))
        plane = ControlPlane(Layout(base=base, state=state), ensure_binaries(print))
        stack.callback(plane.destroy)
        plane.up()
        yield plane


@pytest.fixture(scope="session")
def luban_api(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, with Luban's CRDs."""
    control_plane.kubectl("apply", "-k", str(ROOT / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
    return control_plane


@pytest.fixture(scope="session")
def luban_base(luban_api: ControlPlane) -> ControlPlane:
    """The control plane with all of manifests/base applied, and the balancers of a LubanCluster `luban`."""
    luban_api.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
    wait_until(lambda: _applies_balancers(luban_api), what="the operator's rights and policies", timeout=30.0)
    return luban_api


def _applies_balancers(plane: ControlPlane) -> bool:
    """Rights that were given just now are not known to the API server at once."""
    try:
        apply_balancer_objects(plane, "luban-system", "luban")
    except LabError as error:
        if "forbidden" in str(error).lower():
            return False
        raise
    return True


@pytest.fixture(scope="session")
def operator_kubeconfig(luban_base: ControlPlane) -> Path:
    """Kubeconfig of the operator's ServiceAccount, with exactly the rights of manifests/base."""
    path = luban_base.layout.state / "operator.kubeconfig"
    luban_base.service_account_kubeconfig("luban-system", "luban-operator", path)
    return path


@pytest.fixture
def namespace(luban_api: ControlPlane) -> str:
    """A namespace of this test's own, with rights for the operator. It stays: nothing would finish its deletion."""
    name = f"test-{next(_numbers)}"
    luban_api.kubectl("create", "namespace", name)
    luban_api.kubectl(
        *("create", "rolebinding", "luban-operator-namespace", "--clusterrole=luban-operator-namespace"),
        *("--serviceaccount=luban-system:luban-operator", "-n", name),
    )
    return name


@contextmanager
def _free_base() -> Iterator[int]:
    """A base that neither another run of the tests has nor anything else that listens there."""
    for base in BASES:
        with (Path(tempfile.gettempdir()) / f"luban-test-{base}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _is_free(base):
                yield base
                return
    raise RuntimeError(f"no free loopback addresses: 127.0.{BASES.start}.1 to 127.0.{BASES.stop}.1 are all in use")


def _is_free(base: int) -> bool:
    for port in (API_PORT, ETCD_PORT, ETCD_PEER_PORT):
        with socket.socket() as probe:
            if probe.connect_ex((f"127.0.{base}.1", port)) == 0:
                return False
    return True

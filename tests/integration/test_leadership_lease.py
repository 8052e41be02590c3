"""Leadership on a real API server: the Lease with the rights of manifests/base; operators follow each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from lab.controlplane import ControlPlane
from luban.adapters.kubernetes_api import KubernetesLease, connect_lease
from luban.controller.leadership import LEASE_SECONDS
from luban.errors import Conflict
from luban.ports import LeaseRecord

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

NAMESPACE, NAME = "luban-system", "luban-operator"
ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE = 60.0


def holder(plane: ControlPlane) -> str:
    """Who holds the Lease."""
    text = plane.kubectl("get", "lease", NAME, "-n", NAMESPACE, "-o", "json", "--ignore-not-found")
    return str(json.loads(text)["spec"].get("holderIdentity") or "") if text.strip() else ""


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll. Fails after DEADLINE seconds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE:g} s"
        time.sleep(0.1)


@pytest.fixture
def nobody(luban_base: ControlPlane) -> Iterator[ControlPlane]:
    """Nobody holds the Lease."""
    luban_base.kubectl("delete", "lease", NAME, "-n", NAMESPACE, "--ignore-not-found")
    yield luban_base
    luban_base.kubectl("delete", "lease", NAME, "-n", NAMESPACE, "--ignore-not-found")
    luban_base.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))


@pytest.fixture
async def lease(nobody: ControlPlane, operator_kubeconfig: Path) -> AsyncIterator[KubernetesLease]:
    """As the operator's ServiceAccount."""
    found = await connect_lease(str(operator_kubeconfig), NAMESPACE, NAME)
    yield found
    await found.close()


async def test_the_lease_is_made_renewed_given_back_and_taken(nobody: ControlPlane, lease: KubernetesLease) -> None:
    assert await lease.read() is None
    made = await lease.create(LeaseRecord("a", LEASE_SECONDS))
    assert (made.holder, made.duration) == ("a", LEASE_SECONDS)
    with pytest.raises(Conflict):
        await lease.create(LeaseRecord("b", LEASE_SECONDS))
    renewed = await lease.renew(made)
    assert renewed.version != made.version
    for write in (lease.renew, lease.take):
        with pytest.raises(Conflict):
            await write(made)
    free = await lease.renew(LeaseRecord("", LEASE_SECONDS, renewed.version))
    assert (await lease.read()) == free
    taken = await lease.take(LeaseRecord("b", LEASE_SECONDS, free.version))
    assert taken.holder == "b"
    spec = json.loads(nobody.kubectl("get", "lease", NAME, "-n", NAMESPACE, "-o", "json"))["spec"]
    assert spec["leaseTransitions"] == 1
    assert spec["acquireTime"] >= spec["renewTime"][:10]


@pytest.fixture
def start(nobody: ControlPlane, operator_kubeconfig: Path, tmp_path: Path) -> Iterator[Callable[[], Program]]:
    """Starts operators."""
    running: list[Program] = []

    def begin() -> Program:
        running.append(Program(operator_kubeconfig, tmp_path / f"{len(running)}.log", len(running)))
        return running[-1]

    yield begin
    for program in running:
        program.end()


class Program:
    """An operator in a process of its own."""

    def __init__(self, kubeconfig: Path, log: Path, number: int) -> None:
        self.log = log
        command = [sys.executable, "-m", "luban", "controller", "--listen-address", f"127.0.110.{number + 1}"]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stdout=file, stderr=file
            )

    def leads(self) -> bool:
        """Whether its last word on it is that it leads."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        words = [line["event"] for line in lines if line.get("event") in ("leading", "leading no more")]
        return words[-1:] == ["leading"]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """kill -9, whatever state it is in."""
        self._process.kill()
        self._process.wait()


def test_operators_follow_each_other(nobody: ControlPlane, start: Callable[[], Program]) -> None:
    """One acts, the other waits: after a clean stop, after kill -9, and while the first stands still."""
    first = start()
    until(first.leads, "the first leads")
    second = start()
    first.signal(signal.SIGTERM)
    until(second.leads, "the second leads after a clean stop")
    third = start()
    second.end()
    until(third.leads, "the third leads after kill -9")
    fourth = start()
    third.signal(signal.SIGSTOP)
    until(fourth.leads, "the fourth leads while the third stands still")
    third.signal(signal.SIGCONT)
    until(lambda: not third.leads(), "the third knows that it leads no more")
    assert fourth.leads()
    assert holder(nobody)
    for program in (first, second, third, fourth):
        assert " has failed" not in program.log.read_text(), "each of its watches goes on"

"""Knocking at a host's port before libvirt is let at it, on the kernel's own TCP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luban.adapters.libvirt_hosts.errors import NotReached
from luban.adapters.libvirt_hosts.knock import knock
from luban.ports import HostRef

pytestmark = [pytest.mark.integration]
ROOT = Path(__file__).parents[2]


def test_a_knock_is_answered_or_the_port_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        host = HostRef("host-b", f"qemu+tls://127.0.0.1:{port}/system")
        knock(host)
    with pytest.raises(NotReached, match=f"host-b: .*TCP port {port} is closed"):
        knock(host)


def test_any_of_its_addresses_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def two_addresses(name: str, port: int, *rest: Any, **kind: Any) -> Any:
        if name != "host-b":
            return resolve(name, port, *rest, **kind)
        return [entry for address in ("127.0.68.9", "127.0.68.10") for entry in resolve(address, port, *rest, **kind)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with socket.create_server(("127.0.68.10", 0)) as server:
        knock(HostRef("host-b", f"qemu+tls://host-b:{server.getsockname()[1]}/system"))


def test_a_name_that_nobody_knows_is_said() -> None:
    with pytest.raises(NotReached, match="its name cannot be resolved"):
        knock(HostRef("host-b", "qemu+tls://host-b.invalid/system"))


def test_other_ways_to_a_host_are_not_knocked_at() -> None:
    for uri in ("qemu:///system", "qemu+ssh://host-b.invalid/system", "test:///default"):
        knock(HostRef("host-b", uri))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="makes a network namespace")
def test_a_host_whose_packets_get_lost_costs_no_thread_and_is_back_when_it_answers() -> None:
    command = ["unshare", "--net", sys.executable, "-m", "tests.fakes.vanished_host"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("threads") <= 2, "that of the events, and one that ends"
    assert seen == {"opened_while_away": 0, "opened": 1}

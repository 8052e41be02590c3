"""The node agent inside the guest, and its LubanHost as everybody sees it: through the lab's API server."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.bonds.data import Report
from lab.bonds.guest import BondGuest
from lab.bonds.relay import Relay
from lab.bonds.rpc import GuestProcess
from lab.bonds.settings import BondSettings
from lab.controlplane import API_PORT, ControlPlane
from lab.nodes import NodeAgent
from lab.process import LabError, wait_until

NOBODY = 65534
"""The agent's user: no privilege and no capability."""
START_SECONDS = 90.0
STOP_SECONDS = 10.0
KUBECONFIG = "/run/luban/{}.kubeconfig"


@dataclass
class GuestAgent:
    """`luban node-agent` in a guest, as an ordinary user, with a token that is bound to its node."""

    node: str
    process: GuestProcess

    @classmethod
    def start(cls, guest: BondGuest, plane: ControlPlane, agent: NodeAgent, relay: Relay, *options: str) -> GuestAgent:
        """Start it; its reports reach `plane` through `relay`. `options`: more of its command line."""
        config = yaml.safe_load(agent.kubeconfig(plane).read_text())
        cluster = config["clusters"][0]["cluster"]
        cluster["server"] = guest.api_server_url(relay)
        # The guest has not the lab's files.
        authority = Path(cluster.pop("certificate-authority")).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
        path = KUBECONFIG.format(agent.host)
        guest.run("/bin/sh", "-c", f"umask 077; cat > {path} && chown {NOBODY} {path}", stdin=yaml.safe_dump(config))
        command = ("node-agent", "--node-name", agent.host, "--kubeconfig", path, "--listen-address", "127.0.0.1")
        return cls(agent.host, guest.spawn_luban(*command, *options, user=NOBODY))

    def stop(self) -> None:
        """End it with SIGTERM."""
        self.process.stop()


def api_relay(guest: BondGuest, plane: ControlPlane) -> Relay:
    """The guest's way to an API server of the lab."""
    return guest.relay_to(plane.layout.api_server, API_PORT)


@dataclass(frozen=True)
class Sighting:
    """A LubanHost as a watcher got it."""

    at: float
    """our monotonic clock (s)"""
    body: dict[str, Any]

    @property
    def node(self) -> str:
        """Which node."""
        return str(self.body["metadata"]["name"])

    @property
    def verdict(self) -> str:
        """Verdict of the bond that matters; empty: no report yet."""
        return str(self.body.get("status", {}).get("bond", {}).get("verdict", ""))

    @property
    def mode(self) -> str:
        """Mode of that bond; empty: not known."""
        return str(self.body.get("status", {}).get("bond", {}).get("mode", ""))

    @property
    def usable(self) -> frozenset[str]:
        """Usable ports of that bond."""
        return frozenset(port["name"] for port in self._bond.get("ports", ()) if port.get("usable"))

    @property
    def notes(self) -> frozenset[str]:
        """Notes about that bond."""
        return frozenset(self._bond.get("notes", ()))

    @property
    def _bond(self) -> dict[str, Any]:
        status = self.body.get("status", {})
        name = status.get("bond", {}).get("name")
        return next((it for it in status.get("bonds", ()) if it["name"] == name), {})


class ReportWatch:
    """All LubanHosts as they change: `kubectl get lubanhosts --watch`, with the time of each line."""

    def __init__(self, plane: ControlPlane) -> None:
        command = [
            *(str(plane.binaries.kubectl), f"--kubeconfig={plane.layout.admin_kubeconfig}"),
            *("get", "lubanhosts", "--watch", "-o", 'jsonpath={@}{"\\n"}'),
        ]
        self.sightings: list[Sighting] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, name="lubanhosts", daemon=True)
        self._reader.start()

    def __enter__(self) -> ReportWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()
        self._reader.join(STOP_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def of(self, node: str) -> list[Sighting]:
        """What was seen of one node, oldest first. Raises LabError if the watch has ended."""
        if self._process.poll() is not None:
            raise LabError("kubectl get lubanhosts --watch has ended")
        return [one for one in list(self.sightings) if one.node == node]

    def until(
        self, node: str, condition: Callable[[Sighting], bool], what: str, *, since: float = 0.0, timeout: float
    ) -> Sighting:
        """The first sighting after `since` (monotonic) that satisfies `condition`. Raises LabError naming `what`."""

        def found() -> Sighting | None:
            return next((one for one in self.of(node) if one.at >= since and condition(one)), None)

        wait_until(lambda: found() is not None, what=f"LubanHost {node}: {what}", timeout=timeout)
        sighting = found()
        assert sighting is not None
        return sighting

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.sightings.append(Sighting(time.monotonic(), json.loads(line)))


SINGLE = '{"spec":{"hold":"0s","flapping":{"downs":1000}}}'
"""Spec of a LubanHost for experiments: each fault stands for itself, and better verdicts are published at once."""


@contextlib.contextmanager
def watched(guest: BondGuest, plane: ControlPlane, node: str) -> Iterator[AgentObserver]:
    """An agent in the guest that reports as `node` to `plane`, which has manifests/base; it ends with the block."""
    with ReportWatch(plane) as watch:
        guest.configure(BondSettings())
        agent = GuestAgent.start(guest, plane, NodeAgent(plane.layout, node), api_relay(guest, plane))
        watch.until(node, lambda one: one.verdict == "Healthy", "a healthy bond", timeout=START_SECONDS)
        plane.kubectl("patch", "lubanhost", node, "--type=merge", "-p", SINGLE)
        yield AgentObserver(watch, node)
        agent.stop()


class AgentObserver:
    """The node agent's verdicts as they arrive in the API server: an observer for the failover experiment."""

    name = "LubanHost in the API server"

    def __init__(self, watch: ReportWatch, node: str) -> None:
        self._watch = watch
        self._node = node
        self._since = 0.0
        self._mode = ""

    def start(self, guest: BondGuest) -> None:
        """Count what is said of the bonds as they are set up now."""
        self._since = time.monotonic()
        self._mode = str(guest.settings.mode) if guest.settings else ""

    def reports(self) -> list[Report]:
        """All since `start`; first what was so then, if that was said of this mode already."""
        seen = [one for one in self._watch.of(self._node) if one.verdict]
        before = [one for one in seen if one.at < self._since][-1:]
        after = [one for one in seen if one.at >= self._since]
        return [
            Report(max(one.at, self._since), one.verdict, one.usable, one.notes)
            for one in (*before, *after)
            if one.mode == self._mode
        ]

    def stop(self) -> None:
        """Nothing to end: the agent watches all modes."""

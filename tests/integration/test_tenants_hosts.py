"""Two teams, a whole operator with --hosts=Registered, real libvirt daemons: whose host is used, and what others hear.

The daemons' domains are simulated. docs/tenants.md has the table."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.support.rpc_witness import RpcWitness
from bench.support.simulated_hosts import POOL, SimulatedHost
from lab.controlplane import ControlPlane
from luban.api import names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
Body = dict[str, Any]
IMAGE = "web.qcow2"
PATIENCE = 90.0
TEAMS = {"of-a": "hosts-team-a", "of-b": "hosts-team-b"}
"""By host: the namespace that it is for."""


def luban_object(kind: str, name: str, namespace: str = "", **spec: Any) -> Body:
    """A LubanCluster or LubanHost."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def cluster(host: Body, namespace: str, pool: str = POOL) -> Body:
    """A LubanCluster of one VM on one host."""
    template = {
        "image": {"pool": pool, "volume": IMAGE, "size": "16Mi"},
        "network": {"type": "Network", "source": "default"},
    }
    scaling = {"policy": "Manual", "minVMs": 1, "maxVMs": 1}
    return luban_object("LubanCluster", "shop", namespace, hosts=[host], template={"spec": template}, scaling=scaling)


@dataclass
class Decoy:
    """A place where nobody is to be sent."""

    socket: Path
    visits: int = 0

    @property
    def uri(self) -> str:
        """Leads here."""
        return f"qemu+unix:///session?socket={self.socket}"

    def visited(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody came."""
        self.visits += 1
        writer.close()


@dataclass
class Scene:
    """What an administrator set up."""

    plane: ControlPlane
    hosts: dict[str, SimulatedHost]
    witnesses: dict[str, RpcWitness]
    decoy: Decoy
    log: Path
    made: list[str] = field(default_factory=list)

    async def kubectl(self, *arguments: str, body: Body | None = None) -> str:
        """As administrator."""
        return await asyncio.to_thread(self.plane.kubectl, *arguments, stdin=json.dumps(body) if body else "")

    async def status(self, namespace: str) -> Body:
        """Of a team's LubanCluster."""
        found: Body = json.loads(await self.kubectl("get", "lubancluster", "shop", "-n", namespace, "-o", "json"))
        return dict(found.get("status") or {})

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for what comes true in the end."""
        end = time.monotonic() + PATIENCE
        while not await condition():
            assert time.monotonic() < end, f"{what}: not within {PATIENCE:g} s\n{self.log.read_text()[-3000:]}"
            await asyncio.sleep(0.2)

    async def domains(self, host: str) -> list[str]:
        """Their names, as the daemon has them."""
        found = await asyncio.to_thread(self.hosts[host].kept.listAllDomains)
        return [domain.name() for domain in found]

    async def away(self, namespace: str) -> None:
        """Take a team's LubanCluster away again."""
        await self.kubectl("delete", "lubancluster", "shop", "-n", namespace, "--wait=false", "--ignore-not-found")

        async def gone() -> bool:
            return not (await self.kubectl("get", "lubanclusters,lubanvms", "-n", namespace, "-o", "name")).strip()

        await self.until(gone, f"nothing is left in {namespace}")


def passable_folder() -> Path:
    """The daemons' own user gets there, and sockets have short paths."""
    folder = Path(tempfile.mkdtemp(prefix="luban-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
async def scene(luban_base: ControlPlane, operator_kubeconfig: Path) -> AsyncIterator[Scene]:
    """Two daemons, each registered for one team; and the operator."""
    async with AsyncExitStack() as stack:
        folder = passable_folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        hosts, witnesses = {}, {}
        for name in TEAMS:
            hosts[name] = host = SimulatedHost(name, folder / name)
            stack.callback(host.end)
            await asyncio.to_thread(host.begin)
            await asyncio.to_thread(host.answer)
            host.add_image(IMAGE)
            witnesses[name] = await stack.enter_async_context(RpcWitness(host.socket, folder / f"{name}.sock"))
        decoy = Decoy(folder / "decoy.sock")
        server = await asyncio.start_unix_server(decoy.visited, decoy.socket)
        stack.callback(server.close)
        made = Scene(luban_base, hosts, witnesses, decoy, folder / "operator.log")
        await prepare(made)
        operator = start_operator(operator_kubeconfig, made.log)
        stack.push_async_callback(asyncio.to_thread, end, operator)
        yield made
        for namespace in TEAMS.values():
            await made.away(namespace)
        for name in TEAMS:
            await made.kubectl("delete", "lubanhost", name)


async def prepare(scene: Scene) -> None:
    """Namespaces with the operator's rights, and LubanHosts."""
    for name, namespace in TEAMS.items():
        if not (await scene.kubectl("get", "namespace", namespace, "-o", "name", "--ignore-not-found")).strip():
            await scene.kubectl("create", "namespace", namespace)
            binding = ("create", "rolebinding", "luban-operator-namespace", "--clusterrole=luban-operator-namespace")
            await scene.kubectl(*binding, "--serviceaccount=luban-system:luban-operator", "-n", namespace)
        libvirt = {"uri": scene.witnesses[name].uri, "namespaces": [namespace], "pools": [POOL]}
        await scene.kubectl("apply", "-f", "-", body=luban_object("LubanHost", name, libvirt=libvirt))


def start_operator(kubeconfig: Path, log: Path) -> subprocess.Popen[bytes]:
    """A whole one, for these namespaces: those of other tests are none of its business."""
    options = ["--hosts=Registered", "--no-leader-election", "--listen-address=127.0.110.9"]
    options += [f"--namespace={namespace}" for namespace in TEAMS.values()]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with log.open("wb") as file:
        command = [sys.executable, "-m", "luban", "controller", *options]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and its end."""
    process.terminate()
    process.wait(timeout=60)


async def test_each_team_has_its_own_hosts_and_nobody_elses(scene: Scene) -> None:
    """The positive first: what team-a may do works, so that a refusal below is no outage."""
    team_a, team_b = TEAMS.values()
    await scene.kubectl("apply", "-f", "-", body=cluster({"name": "of-a"}, team_a))

    async def runs() -> bool:
        return any(name.startswith(f"{team_a}_shop-") for name in await scene.domains("of-a"))

    await scene.until(runs, "team-a's VM runs on its host")
    assert await scene.domains("of-b") == []
    of_a, of_b = (scene.witnesses[name].uri for name in TEAMS)
    for host, pool, reason, words in (
        ({"name": "of-a"}, POOL, "NamespaceNotAllowed", f"LubanHost of-a is not for namespace {team_b}"),
        ({"name": "of-b"}, "payroll", "PoolNotAllowed", "LubanHost of-b does not offer storage pool payroll"),
        ({"name": "mine", "uri": of_a}, POOL, "InlineURIRefused", "the operator takes no others (--hosts=Registered)"),
        ({"name": "mine", "uri": scene.decoy.uri}, POOL, "InlineURIRefused", "--hosts=Registered"),
        ({"name": "of-b", "uri": of_a}, POOL, "HostURIDiffers", f"but LubanHost of-b says {of_b}"),
        ({"name": "of-b", "uri": scene.decoy.uri}, POOL, "HostURIDiffers", f"but LubanHost of-b says {of_b}"),
    ):
        await refused(scene, cluster(host, team_b, pool), reason, words)
    assert scene.decoy.visits == 0
    assert not scene.witnesses["of-b"].calls.get("defineXML")
    await scene.kubectl("apply", "-f", "-", body=cluster({"name": "of-b"}, team_b))

    async def runs_too() -> bool:
        return any(name.startswith(f"{team_b}_shop-") for name in await scene.domains("of-b"))

    await scene.until(runs_too, "team-b's VM runs on its own host")
    assert not any(name.startswith(team_b) for name in await scene.domains("of-a"))


async def refused(scene: Scene, body: Body, reason: str, words: str) -> None:
    """A LubanCluster whose host is refused: it says why, and nothing of it runs anywhere."""
    namespace = body["metadata"]["namespace"]
    await scene.kubectl("apply", "-f", "-", body=body)
    condition: Body = {}

    async def told() -> bool:
        conditions = {it["type"]: it for it in (await scene.status(namespace)).get("conditions", [])}
        condition.update(conditions.get("HostsAllowed", {}))
        return condition.get("reason") == reason

    await scene.until(told, f"{reason} told of {body['spec']['hosts']} ({condition})")
    assert condition["status"] == "False"
    assert words in condition["message"]
    assert (await scene.kubectl("get", "lubanvms", "-n", namespace, "-o", "name")).strip() == ""
    for host in TEAMS:
        assert not any(name.startswith(namespace) for name in await scene.domains(host))
    await scene.away(namespace)

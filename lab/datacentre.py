"""The whole lab: control plane, two KVM hosts, operator, balancers, Prometheus, brought up and taken down in order."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.binaries import ensure_binaries
from lab.controlplane import ControlPlane
from lab.database import Database
from lab.hosts import KvmHosts
from lab.image.build import ensure_image
from lab.nodes import node_agents
from lab.paths import DEFAULT_BASE, Layout
from lab.process import Daemon, LabError, running, wait_until
from luban.api.names import agent_audience

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "manifests" / "samples" / "luban.yaml"
CLUSTER = "luban"
NAMESPACE = "luban-system"
"""Of the operator and of the sample cluster with its balancers."""
BALANCER_IMAGE = "luban-cloud"
"""Nobody pulls it: the lab runs this tree."""
START_TIMEOUT = 60.0
SERVED_TIMEOUT = 180.0
"""Seconds until the first VM serves: 15 on an idle machine, where guests are emulated."""
Progress = Callable[[str], None]
USER_DATA = """\
#!/bin/sh
umask 077
mkdir -p /etc/luban
cat >/etc/luban/service.env <<'END'
DATABASE_URL={database_url}
LUBAN_EXPERIMENTS=1
END
"""
"""Experiments: demo, benchmarks and tests put a known load on the VMs through /work."""


@dataclass(frozen=True)
class Addresses:
    """Where the parts of a lab answer."""

    service: str
    agent: str
    operator: str
    prometheus: str

    @classmethod
    def of(cls, layout: Layout) -> Addresses:
        """Base URLs of a lab."""
        return cls(
            service=f"http://{layout.httpd}:8080",
            agent=f"http://{layout.httpd}:9180",
            operator=f"http://{layout.operator}:8081",
            prometheus=f"http://{layout.prometheus}:9090",
        )


class DataCentre:
    """One lab on one machine."""

    def __init__(self, layout: Layout, progress: Progress) -> None:
        self.layout = layout
        self.progress = progress
        self.addresses = Addresses.of(layout)
        self.hosts = KvmHosts(layout)
        self.operator = Daemon("operator", layout.state)
        self.balancers = Daemon("balancers", layout.state)
        """Runs the balancers that the operator asks for (lab/balancers.py)."""
        self.agent = Daemon("balancer-agent", layout.state)
        """The sample's first balancer."""
        self.prometheus = Daemon("prometheus", layout.state)
        self.node_agents = node_agents(layout)
        self.database = Database(layout)
        self._control_plane: ControlPlane | None = None

    @property
    def control_plane(self) -> ControlPlane:
        """The Kubernetes control plane; its binaries are built at first use."""
        if self._control_plane is None:
            self._control_plane = ControlPlane(self.layout, ensure_binaries(self.progress))
        return self._control_plane

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl as administrator; returns its output. Raises LabError with its message."""
        return self.control_plane.kubectl(*arguments, stdin=stdin)

    def up(self) -> None:
        """Bring everything up that is not; returns when it answers. Raises LabError naming the part that does not."""
        ensure_image()
        self.progress("control plane: kube-apiserver and etcd")
        self.control_plane.up()
        self.progress("custom resources and access rights")
        self.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
        # So that `kubectl get lc,lvm` shows the sample without -n.
        self.kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
        self.progress("KVM hosts: host-b and host-c")
        self.hosts.up()
        self.progress("PostgreSQL, which the VMs share")
        self.database.up()
        self.start_operator()
        self.start_balancers()
        self.start_node_agents()
        self.start_prometheus()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return when operator, node agents and Prometheus answer."""
        for daemon, url in (
            (self.operator, f"{self.addresses.operator}/healthz"),
            (self.prometheus, f"{self.addresses.prometheus}/-/ready"),
            *((agent.daemon, f"{agent.url}/healthz") for agent in self.node_agents),
        ):
            await_answer(daemon, url)

    def start_operator(self, *more: str) -> None:
        """Start the operator with the ServiceAccount and the rights that manifests/base gives it. `more`: arguments."""
        self.progress("operator")
        config = self.layout.state / "operator.kubeconfig"
        self.control_plane.service_account_kubeconfig(NAMESPACE, "luban-operator", config)
        self.operator.start(
            [*luban(), *operator_arguments(self.layout), *more], env={"KUBECONFIG": str(config)}, cwd=ROOT
        )

    def start_balancers(self) -> None:
        """Start what runs the balancers: Apache httpd and its agent for each that the operator asks for."""
        self.progress("runner of the balancers")
        layout = {"LUBAN_LAB_BASE": str(self.layout.base), "LUBAN_LAB_DIR": str(self.layout.state.parent)}
        self.balancers.start([sys.executable, "-m", "lab.balancers"], env=layout, cwd=ROOT)

    def balancer_daemons(self) -> list[Daemon]:
        """All balancers that run, or ran."""
        records = sorted((self.layout.state / "run").glob("balancer-agent*.json"))
        return [Daemon(record.stem, self.layout.state) for record in records]

    def report_token(self) -> str:
        """A token that opens the sample's reports, as the operator's: good for a day, and for nothing else."""
        audience = agent_audience(NAMESPACE, CLUSTER)
        options = [f"--namespace={NAMESPACE}", f"--audience={audience}", "--duration=24h"]
        return self.kubectl("create", "token", "luban-operator", *options).strip()

    def start_node_agents(self) -> None:
        """Start the node agents of both hosts."""
        self.progress("node agents of host-b and host-c")
        for agent in self.node_agents:
            agent.start(self.control_plane, ROOT)

    def start_prometheus(self) -> None:
        """Start Prometheus, scraping operator and agents every two seconds."""
        self.progress("Prometheus")
        config = self.layout.state / "prometheus.yml"
        nodes = [agent.url.removeprefix("http://") for agent in self.node_agents]
        targets = [f"{self.layout.operator}:8081", f"{self.layout.httpd}:9180", *nodes]
        scrape = {"job_name": "luban", "static_configs": [{"targets": targets}]}
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": "2s"}, "scrape_configs": [scrape]}))
        binary = shutil.which("prometheus")
        if binary is None:
            raise LabError("prometheus is not installed: run `make packages`")
        self.prometheus.start(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={self.layout.state / 'prometheus'}",
                f"--web.listen-address={self.layout.prometheus}:9090",
            ]
        )

    def sample(self) -> str:
        """The sample LubanCluster with this lab's addresses."""
        text = SAMPLE.read_text()
        for octet in (2, 1, 0):  # the highest first: a replaced one must not be replaced again
            text = text.replace(f"127.0.{DEFAULT_BASE + octet}.", f"127.0.{{{octet}}}.")
        for octet in range(3):
            text = text.replace(f"127.0.{{{octet}}}.", f"127.0.{self.layout.base + octet}.")
        for name, uri in self.hosts.uris().items():
            text = text.replace("${" + name.upper().replace("-", "_") + "_URI}", uri)
        return text

    def apply_sample(self) -> None:
        """Create or update the sample LubanCluster, and the Secret with the settings of the service in its VMs."""
        metadata = {"name": "luban-userdata", "namespace": NAMESPACE}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "stringData": {"userdata": self.user_data()},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        self.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=self.sample())

    def has_cluster(self) -> bool:
        """Whether anybody has applied a LubanCluster."""
        return bool(self.kubectl("get", "lubanclusters", "--all-namespaces", "--output=name").strip())

    def wait_served(self) -> None:
        """Return when the sample's VMs answer through httpd. Raises LabError naming what to look at."""
        url = f"{self.addresses.service}/readyz"
        self.progress(f"the first VM boots: waiting for {url} ({SERVED_TIMEOUT:g} s at most)")
        try:
            await_answer(self.balancers, url, timeout=SERVED_TIMEOUT)
        except LabError as error:
            raise LabError(f"{error}\n`kubectl describe lc,lvm` says what holds the VMs up") from error

    def user_data(self) -> str:
        """The VMs' cloud-init user-data: a script that leaves the service's environment where it looks for it."""
        return USER_DATA.format(database_url=self.database.url())

    def pull_the_plug(self, host: str, uuid: str) -> None:
        """End a VM at once, as a power cut would. Raises LabError with virsh's words."""
        command = ["virsh", "-q", "-c", self.hosts.uris()[host], "destroy", uuid]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise LabError(f"virsh destroy {uuid} on {host}: {done.stderr.strip()}")

    def down(self) -> None:
        """Stop everything; objects, images and logs stay for the next `up`."""
        nodes = (it.daemon for it in self.node_agents)
        # The runner before the balancers: it would start them again.
        for daemon in (self.operator, self.balancers, *self.balancer_daemons(), self.prometheus, *nodes):
            self._announce(daemon.name, daemon.name)
            daemon.stop()
        self._announce("the KVM hosts and their VMs", "libvirtd-")
        self.hosts.down()
        self._announce("PostgreSQL", self.database.daemon.name)
        self.database.down()
        if self._announce("the control plane", "etcd", "kube-apiserver"):
            self.control_plane.down()

    def _announce(self, what: str, *daemons: str) -> bool:
        """Say that it is stopped if one of its daemons, whose names begin so, runs. Returns whether one does."""
        runs = any(name.startswith(daemons) for name in running(self.layout.state))
        if runs:
            self.progress(f"stopping {what}")
        return runs

    def destroy(self) -> None:
        """Stop everything and remove all that `up` made for this lab; the cache stays."""
        self.down()
        self.hosts.destroy()
        shutil.rmtree(self.layout.state, ignore_errors=True)


def luban() -> list[str]:
    """The `luban` command of the environment that runs the lab."""
    return [sys.executable, "-m", "luban"]


def operator_arguments(layout: Layout) -> list[str]:
    """Arguments of `luban` that run the operator of a lab."""
    command = ["controller", "--listen-address", layout.operator, "--listen-port", "8081", "--user-networking"]
    # All of the lab is on loopback addresses, its balancer agents too.
    return [*command, "--agent-network", "127.0.0.0/8", "--balancer-image", BALANCER_IMAGE]


def await_answer(daemon: Daemon, url: str, *, timeout: float = START_TIMEOUT) -> None:
    """Return when `url` answers 200. Raises LabError with the log's end if the daemon ended or takes too long."""

    def answers() -> bool:
        if daemon.pid() is None:
            raise LabError(f"{daemon.name} ended; its log {daemon.log} says:\n{daemon.tail()}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - a URL of our own lab
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_until(answers, what=f"{daemon.name} on {url}", timeout=timeout)
    except LabError as error:
        if daemon.pid() is None:
            raise
        raise LabError(f"{error}; its log {daemon.log} says:\n{daemon.tail()}") from error

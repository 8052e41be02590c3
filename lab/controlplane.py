"""A real Kubernetes control plane as two local processes: etcd and kube-apiserver.

There is no kube-controller-manager, scheduler or node. So: Pods stay Pending, a deleted namespace stays
Terminating, owner references are not collected, Deployments make no Pods, and a new namespace gets no
ServiceAccount `default` (the namespace `default` has one: `up` makes it). Everything that the API server
itself does is real: storage, watches, conflicts, finalizers, CRD validation, CEL, admission, RBAC, tokens.
"""

from __future__ import annotations

import base64
import contextlib
import http
import http.client
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from lab.binaries import Binaries
from lab.certificates import Certificates, ensure_certificates
from lab.paths import Layout
from lab.process import Daemon, LabError, require_free, wait_until

API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
START_TIMEOUT = 60.0
"""Seconds until a part must be ready; on an idle machine both take 3 s together."""
CALL_TIMEOUT = 30.0
"""Seconds that one call of kubectl may take."""
WATCH_GRACE_SECONDS = 1
TOKEN_SECONDS = 30 * 24 * 3600
SERVICE_RANGE = "10.96.0.0/16"


class ControlPlane:
    """The control plane of one lab, on `layout.api_server`, with its data below `layout.state`."""

    def __init__(self, layout: Layout, binaries: Binaries, extra_options: Sequence[str] = ()) -> None:
        """`extra_options`: further options of kube-apiserver."""
        self.layout = layout
        self.binaries = binaries
        self._extra_options = extra_options
        self.etcd = Daemon("etcd", layout.state)
        self.api_server = Daemon("kube-apiserver", layout.state)
        self._certificates = Certificates(layout.state / "pki")

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"https://{self.layout.api_server}:{API_PORT}"

    def up(self) -> None:
        """Start what does not run; returns when it is ready.

        Raises LabError with the end of its log if a part ends at once, naming the log if it takes too long.
        """
        self.layout.state.mkdir(parents=True, exist_ok=True)
        ensure_certificates(self._certificates.folder, self.layout.api_server)
        self._write_admin_kubeconfig()
        self._start_etcd()
        self._start_api_server()
        self.wait_ready()
        self._ensure_default_service_account()

    def down(self) -> None:
        """Stop both; every object is kept for the next `up`."""
        self.api_server.stop()
        self.etcd.stop()

    def destroy(self) -> None:
        """Stop both and remove what `up` made, all objects included.

        Kubeconfigs of ServiceAccounts stay where they were asked for, and are of no use any more.
        """
        self.down()
        for folder in (self._etcd_data, self._certificates.folder, self._kubectl_cache):
            shutil.rmtree(folder, ignore_errors=True)
        for daemon in (self.api_server, self.etcd):
            daemon.log.unlink(missing_ok=True)
        self.layout.admin_kubeconfig.unlink(missing_ok=True)
        for folder in (self.etcd.record.parent, self.etcd.log.parent, self.layout.state):
            _remove_if_empty(folder)

    def restart_api_server(self) -> None:
        """Stop kube-apiserver with SIGTERM and start it again; returns when it is ready.

        Watches end, as in a real upgrade; objects stay.
        """
        self.api_server.stop()
        self._start_api_server()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return when the API server says that it is ready. Raises LabError if it ends or takes too long."""
        self._await(self.api_server, API_PORT, "/readyz")

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl as administrator; returns what it prints. Raises LabError with its message if it fails.

        `stdin` is its standard input, for `-f -`.
        """
        # Discovery is cached by address, and a later lab at the same address is another cluster: hence a
        # cache of our own, which goes with the lab. KUBERC=off: no preferences of the person who runs us.
        options = ["--kubeconfig", str(self.layout.admin_kubeconfig), "--cache-dir", str(self._kubectl_cache)]
        try:
            done = subprocess.run(
                [self.binaries.kubectl, *options, *arguments],
                input=stdin,
                env={**os.environ, "KUBERC": "off"},
                capture_output=True,
                text=True,
                timeout=CALL_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"kubectl {' '.join(arguments)}: no answer after {CALL_TIMEOUT:g} s") from error
        if done.returncode != 0:
            raise LabError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def service_account_kubeconfig(
        self, namespace: str, name: str, path: Path, duration_seconds: int = TOKEN_SECONDS, node: str = ""
    ) -> None:
        """Write a kubeconfig that is the ServiceAccount `namespace`/`name`, which must exist.

        Its token comes from the TokenRequest API and is good for `duration_seconds` (at least 600), across
        restarts too. `node`: the token is bound to this Node, which must exist, and names it as a Pod's there would.
        It needs the lab's certificate authority (ca.crt), which it names. Raises LabError if there is no such
        ServiceAccount or Node.
        """
        bound = ["--bound-object-kind=Node", f"--bound-object-name={node}"] if node else []
        token = self.kubectl(
            "create", "token", name, f"--namespace={namespace}", f"--duration={duration_seconds}s", *bound
        ).strip()
        # A file, not its content: Python's client would write that to a temporary file, which a killed one leaves.
        cluster = {"server": self.url, "certificate-authority": str(self._certificates.authority.resolve())}
        write_kubeconfig(path, cluster=cluster, user={"token": token}, namespace=namespace)

    @property
    def _etcd_data(self) -> Path:
        return self.layout.state / "etcd"

    @property
    def _kubectl_cache(self) -> Path:
        return self.layout.state / "kubectl-cache"

    def _start_etcd(self) -> None:
        """Start etcd and wait until it answers: the API server retries a missing etcd only slowly."""
        if self.etcd.pid() is None:
            require_free(self.layout.api_server, ETCD_PORT, ETCD_PEER_PORT)
        self.etcd.start(self._etcd_command())
        self._await(self.etcd, ETCD_PORT, "/health")

    def _etcd_command(self) -> list[str]:
        address, files = self.layout.api_server, self._certificates
        client = f"https://{address}:{ETCD_PORT}"
        peer = f"https://{address}:{ETCD_PEER_PORT}"
        certificate, key, authority = files.etcd, files.key(files.etcd), files.etcd_authority
        return [
            str(self.binaries.etcd),
            "--name=lab",
            f"--data-dir={self._etcd_data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=lab={peer}",
            # Loopback is shared by all users of the machine: without client certificates each of them could
            # read and write every object, past authentication and RBAC.
            "--client-cert-auth",
            f"--cert-file={certificate}",
            f"--key-file={key}",
            f"--trusted-ca-file={authority}",
            "--peer-client-cert-auth",
            f"--peer-cert-file={certificate}",
            f"--peer-key-file={key}",
            f"--peer-trusted-ca-file={authority}",
            # A lab may lose its last objects when the machine (not the process) dies; in exchange writes do
            # not wait for a slow disk.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _start_api_server(self) -> None:
        if self.api_server.pid() is None:
            require_free(self.layout.api_server, API_PORT)
        self.api_server.start(self._api_server_command())

    def _api_server_command(self) -> list[str]:
        address, files = self.layout.api_server, self._certificates
        return [
            str(self.binaries.kube_apiserver),
            f"--bind-address={address}",
            f"--secure-port={API_PORT}",
            f"--tls-cert-file={files.server}",
            f"--tls-private-key-file={files.key(files.server)}",
            f"--client-ca-file={files.authority}",
            f"--etcd-servers=https://{address}:{ETCD_PORT}",
            f"--etcd-cafile={files.etcd_authority}",
            f"--etcd-certfile={files.etcd}",
            f"--etcd-keyfile={files.key(files.etcd)}",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={files.service_account_public}",
            f"--service-account-signing-key-file={files.service_account}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            # Endpoints may not be loopback addresses, so the Service `kubernetes` can have none: do not try.
            f"--advertise-address={address}",
            "--endpoint-reconciler-type=none",
            # As in clusters made by kubeadm, so that manifests meet the same admission here.
            "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction",
            # Without it a stop waits a minute for open watches instead of ending them.
            f"--shutdown-watch-termination-grace-period={WATCH_GRACE_SECONDS}s",
            "--profiling=false",
            *self._extra_options,
        ]

    def _await(self, daemon: Daemon, port: int, path: str) -> None:
        """Return when `path` answers 200. Raises LabError if the daemon ends, or after START_TIMEOUT."""
        context = self._client_context(daemon)

        def ready() -> bool:
            if daemon.pid() is None:
                raise LabError(f"{daemon.name} ended while it started (log: {daemon.log}):\n{daemon.tail()}")
            return _status(self.layout.api_server, port, path, context) == http.HTTPStatus.OK

        wait_until(ready, what=f"{daemon.name} answering {path} (log: {daemon.log})", timeout=START_TIMEOUT)

    def _client_context(self, daemon: Daemon) -> ssl.SSLContext:
        """TLS as a client of etcd or of the API server."""
        files = self._certificates
        pair = (files.etcd_authority, files.etcd) if daemon is self.etcd else (files.authority, files.admin)
        authority, certificate = pair
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, files.key(certificate))
        return context

    def _ensure_default_service_account(self) -> None:
        """Make the ServiceAccount `default` of the namespace `default`, as kube-controller-manager would."""
        # The API server makes the namespace itself, but only after it has said that it is ready.
        wait_until(lambda: self._exists("namespace", "default"), what="the namespace default", timeout=START_TIMEOUT)
        if not self._exists("serviceaccount", "default"):
            self.kubectl("create", "serviceaccount", "default", "--namespace=default")

    def _exists(self, kind: str, name: str) -> bool:
        return bool(self.kubectl("get", kind, name, "--namespace=default", "--ignore-not-found", "-oname"))

    def _write_admin_kubeconfig(self) -> None:
        files = self._certificates
        user = {
            "client-certificate-data": _base64(files.admin),
            "client-key-data": _base64(files.key(files.admin)),
        }
        cluster = {"server": self.url, "certificate-authority-data": _base64(files.authority)}
        write_kubeconfig(self.layout.admin_kubeconfig, cluster=cluster, user=user, namespace="default")


def write_kubeconfig(path: Path, *, cluster: Mapping[str, str], user: Mapping[str, str], namespace: str) -> None:
    """Write a kubeconfig with one context that only its owner can read; it replaces an older one in one step.

    `cluster` and `user` hold address, authority and credentials under the names that a kubeconfig has for them.
    """
    name = "luban-lab"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": dict(cluster)}],
        "users": [{"name": name, "user": dict(user)}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(content, file, sort_keys=False)
    Path(unfinished).replace(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _status(address: str, port: int, path: str, context: ssl.SSLContext) -> int | None:
    """HTTP status of a GET; None if nobody answers. Never through a proxy."""
    connection = http.client.HTTPSConnection(address, port, timeout=2.0, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that other parts of the lab may use too."""
    with contextlib.suppress(OSError):
        folder.rmdir()

"""The lab's control plane, run for real, and how its programs come into being."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import binaries as binaries_module
from lab.binaries import ETCD, KUBERNETES, GoModule, ensure_binaries, ensure_built
from lab.controlplane import ControlPlane
from lab.paths import Layout
from lab.process import LabError, wait_until

# The first test may have to build kube-apiserver: minutes on two cores, once for each machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

BASE = 40
READY_SECONDS = 20.0

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "pairs.test.example"},
    "spec": {
        "group": "test.example",
        "scope": "Namespaced",
        "names": {"plural": "pairs", "singular": "pair", "kind": "Pair"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.min <= self.max", "message": "min is above max"}
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def pair(name: str, low: int, high: int) -> str:
    """A Pair as JSON; valid if low <= high."""
    spec = {"min": low, "max": high}
    return json.dumps({"apiVersion": "test.example/v1", "kind": "Pair", "metadata": {"name": name}, "spec": spec})


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running control plane of this module; every test leaves it running."""
    layout = Layout(base=BASE, state=tmp_path_factory.mktemp("lab"))
    plane = ControlPlane(layout, ensure_binaries(print))
    try:
        plane.up()
        yield plane
    finally:
        plane.destroy()


@pytest.fixture(scope="module")
def crd(control_plane: ControlPlane) -> ControlPlane:
    """The control plane, with a CRD whose CEL rule it enforces."""
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "crd/pairs.test.example", "--timeout=20s")
    return control_plane


@pytest.fixture(scope="module")
def stranger(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kubeconfig of a ServiceAccount without any rights."""
    control_plane.kubectl("create", "serviceaccount", "stranger")
    path = tmp_path_factory.mktemp("kubeconfigs") / "stranger"
    control_plane.service_account_kubeconfig("default", "stranger", path)
    return path


def kubectl_as(plane: ControlPlane, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl with another kubeconfig than the administrator's."""
    return subprocess.run(
        [plane.binaries.kubectl, "--kubeconfig", kubeconfig, "--cache-dir", kubeconfig.parent, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def processes_naming(text: str) -> list[str]:
    """Command lines of running processes that contain `text`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            lines.append(line)
    return lines


def test_it_is_ready(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_its_version_is_the_pinned_one_or_newer(control_plane: ControlPlane) -> None:
    versions = json.loads(control_plane.kubectl("version", "--output=json"))

    assert int(versions["serverVersion"]["minor"]) >= 33
    skew = int(versions["serverVersion"]["minor"]) - int(versions["clientVersion"]["minor"])
    assert abs(skew) <= 1


def test_namespace_default_has_its_service_account(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("get", "serviceaccount", "default", "--output=name").strip()


def test_keys_and_kubeconfigs_are_private(control_plane: ControlPlane, stranger: Path) -> None:
    files = [*(control_plane.layout.state / "pki").iterdir(), control_plane.layout.admin_kubeconfig, stranger]

    assert len(files) > 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_up_again_changes_nothing(control_plane: ControlPlane) -> None:
    before = control_plane.api_server.pid(), control_plane.etcd.pid()

    control_plane.up()

    assert (control_plane.api_server.pid(), control_plane.etcd.pid()) == before


def test_cel_rules_are_enforced(crd: ControlPlane) -> None:
    crd.kubectl("apply", "-f", "-", stdin=pair("good", 1, 2))

    with pytest.raises(LabError, match="min is above max"):
        crd.kubectl("apply", "-f", "-", stdin=pair("bad", 2, 1))


def test_a_wrong_cel_rule_is_refused(control_plane: ControlPlane) -> None:
    wrong = json.dumps(CRD).replace("self.min <= self.max", "self.min <= self.nothing")

    with pytest.raises(LabError, match="undefined field 'nothing'"):
        control_plane.kubectl("apply", "--dry-run=server", "-f", "-", stdin=wrong)


def test_rbac_refuses_a_service_account_without_rights(control_plane: ControlPlane, stranger: Path) -> None:
    whoami = kubectl_as(control_plane, stranger, "auth", "whoami", "--output=json")
    assert json.loads(whoami.stdout)["status"]["userInfo"]["username"] == ("system:serviceaccount:default:stranger")

    refused = kubectl_as(control_plane, stranger, "get", "configmaps")

    assert refused.returncode != 0
    assert "Forbidden" in refused.stderr


def test_rbac_grants_what_a_role_says_and_no_more(control_plane: ControlPlane, tmp_path: Path) -> None:
    control_plane.kubectl("create", "serviceaccount", "reader")
    control_plane.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    control_plane.kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
    kubeconfig = tmp_path / "reader"
    control_plane.service_account_kubeconfig("default", "reader", kubeconfig, duration_seconds=600)

    # The authorizer learns of a new binding through a watch.
    wait_until(
        lambda: kubectl_as(control_plane, kubeconfig, "get", "configmaps").returncode == 0,
        what="the rights of reader",
        timeout=10,
    )
    assert "Forbidden" in kubectl_as(control_plane, kubeconfig, "get", "secrets").stderr


def test_an_unknown_service_account_gets_no_kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> None:
    with pytest.raises(LabError, match='serviceaccounts "nobody" not found'):
        control_plane.service_account_kubeconfig("default", "nobody", tmp_path / "nobody")

    assert not (tmp_path / "nobody").exists()


def test_etcd_serves_nobody_without_its_certificate(control_plane: ControlPlane) -> None:
    context = ssl.create_default_context(cafile=control_plane.layout.state / "pki" / "etcd-ca.crt")
    address = control_plane.layout.api_server

    with (
        socket.create_connection((address, 2379), timeout=5) as plain,
        pytest.raises(ssl.SSLError, match="certificate required"),
        context.wrap_socket(plain, server_hostname=address) as tls,
    ):
        # With TLS 1.3 the refusal arrives after the client's side of the handshake is done.
        tls.recv(1)


def test_restart_of_the_api_server_keeps_objects(crd: ControlPlane, stranger: Path) -> None:
    crd.kubectl("apply", "-f", "-", stdin=pair("kept", 3, 4))
    before = crd.api_server.pid(), crd.etcd.pid()

    crd.restart_api_server()

    assert crd.api_server.pid() != before[0]
    assert crd.etcd.pid() == before[1]
    assert crd.kubectl("get", "pair", "kept", "--output=jsonpath={.spec.max}") == "4"
    assert kubectl_as(crd, stranger, "auth", "whoami").returncode == 0


def test_open_watches_do_not_hold_up_a_restart(control_plane: ControlPlane) -> None:
    plane = control_plane
    command: list[str | Path] = [
        plane.binaries.kubectl,
        "--kubeconfig",
        plane.layout.admin_kubeconfig,
        "get",
        "namespaces",
        "--watch",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()

        ended_by_itself = plane.api_server.stop()
        plane.up()

        watch.wait(timeout=30)
    assert ended_by_itself


def test_down_leaves_no_process_and_up_brings_everything_back(crd: ControlPlane, stranger: Path) -> None:
    crd.kubectl("apply", "-f", "-", stdin=pair("survivor", 5, 6))
    assert len(processes_naming(str(crd.layout.state))) == 2

    crd.down()

    assert processes_naming(str(crd.layout.state)) == []
    started = time.monotonic()
    crd.up()
    assert time.monotonic() - started < READY_SECONDS
    assert crd.kubectl("get", "pair", "survivor", "--output=jsonpath={.spec.max}") == "6"
    assert kubectl_as(crd, stranger, "auth", "whoami").returncode == 0


def test_a_part_that_ends_at_once_is_reported_with_its_log(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_plane.down()
    with monkeypatch.context() as broken:
        broken.setattr("lab.controlplane.SERVICE_RANGE", "nonsense")
        with pytest.raises(LabError, match=r"(?s)kube-apiserver ended.*not a valid cidr"):
            control_plane.up()

    control_plane.up()
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"


@pytest.mark.parametrize("port", [2379, 6443])
def test_addresses_that_are_taken_are_told_with_the_remedy(control_plane: ControlPlane, port: int) -> None:
    control_plane.down()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((control_plane.layout.api_server, port))
        squatter.listen()
        with pytest.raises(LabError, match=rf":{port}: Address already in use.*LUBAN_LAB_BASE"):
            control_plane.up()

    control_plane.up()
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_destroy_removes_all_that_it_made(control_plane: ControlPlane, tmp_path: Path) -> None:
    # Its own state at the same addresses: the others' objects must outlive this test.
    control_plane.down()
    other = ControlPlane(Layout(base=BASE, state=tmp_path / "lab"), control_plane.binaries)
    try:
        other.up()
    finally:
        other.destroy()

    assert not other.layout.state.exists()
    assert processes_naming(str(other.layout.state)) == []
    control_plane.up()


# The programs: a fake `go` stands in for minutes of compiling.

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo "{version}"; exit ;;
build) ;;
esac
echo built >>"{log}"
{build}
while [ "$1" != -o ]; do shift; done
echo program >"$2"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoModule:
    """A module with one program, an empty cache, and no Go on this machine."""
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "go.mod").write_text("module lab\n\ngo 1.24.0\n\nrequire example.test/thing v1.2.3\n")
    (folder / "go.sum").write_text("")
    monkeypatch.setenv("LUBAN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(binaries_module, "GO_PLACES", ())
    monkeypatch.setattr(binaries_module, "PROGRESS_SECONDS", 0.1)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda name: str(tmp_path / "bin" / name))
    return GoModule(folder=folder, upstream="example.test/thing", programs={"thing": "example.test/thing"})


def install_go(tmp_path: Path, *, version: str = "go1.24.3", build: str = ":") -> Path:
    """Put a fake `go` in place; returns the file that gets a line for each build."""
    log = tmp_path / "builds"
    go = tmp_path / "bin" / "go"
    go.parent.mkdir(exist_ok=True)
    go.write_text(FAKE_GO.format(version=version, log=log, build=build))
    go.chmod(0o755)
    return log


def test_without_go_the_error_names_the_remedy(module: GoModule) -> None:
    with pytest.raises(LabError, match=r"Go is not installed. Remedy: install Go 1\.24"):
        ensure_built(module, print)


def test_with_an_old_go_the_error_names_the_remedy(module: GoModule, tmp_path: Path) -> None:
    install_go(tmp_path, version="go1.19.8")

    with pytest.raises(LabError, match=r"Go is too old: .*go1\.19\.8.* Remedy: install Go 1\.24"):
        ensure_built(module, print)


def test_a_failed_build_shows_its_log_and_leaves_nothing(module: GoModule, tmp_path: Path) -> None:
    install_go(tmp_path, build="echo no required module >&2; exit 1")

    with pytest.raises(LabError, match="no required module"):
        ensure_built(module, print)

    assert not (tmp_path / "cache" / "bin" / module.key).exists()


def test_two_runs_build_once_and_say_what_they_wait_for(module: GoModule, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    builds = install_go(tmp_path, build=f'while ! [ -e "{go_on}" ]; do sleep 0.05; done')
    said: list[str] = []
    runs = [threading.Thread(target=ensure_built, args=(module, said.append)) for _ in range(2)]

    for run in runs:
        run.start()
    wait_until(lambda: any("another run is building" in line for line in said), what="the second run", timeout=10)
    wait_until(lambda: any("packages compiled" in line for line in said), what="progress", timeout=10)
    go_on.touch()
    for run in runs:
        run.join()

    assert builds.read_text() == "built\n"
    assert (tmp_path / "cache" / "bin" / module.key / "thing").read_text() == "program\n"


def test_the_key_follows_what_is_pinned(module: GoModule) -> None:
    def key() -> str:
        return GoModule(folder=module.folder, upstream=module.upstream, programs=module.programs).key

    before = key()
    assert key() == before
    (module.folder / "go.sum").write_text("example.test/thing v1.2.3 h1:x\n")
    assert key() != before
    assert before.startswith("thing-v1.2.3-")


def test_what_the_lab_builds_is_new_enough() -> None:
    assert KUBERNETES.version.startswith("v1.")
    assert int(KUBERNETES.version.split(".")[1]) >= 33
    assert ETCD.version.startswith("v3.")
    assert int(ETCD.version.split(".")[1]) >= 5
    assert max(KUBERNETES.oldest_go, ETCD.oldest_go) <= (1, 24)


def fake_program(folder: Path, name: str, says: str) -> None:
    """A program that prints its version and nothing else."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("server", "client", "etcd", "problem"),
    [
        ("1.33.0", "1.34.1", "3.5.21", None),
        ("1.32.9", "1.32.0", "3.5.21", "kube-apiserver is older than 1.33"),
        ("1.34.0", "1.32.0", "3.5.21", "one minor version apart"),
        ("1.34.0", "1.34.0", "3.4.23", "etcd is older than 3.5"),
        ("1.34.0", "1.34.0", None, "no etcd there or on PATH"),
    ],
)
def test_ready_made_programs_are_used_only_if_they_fit(
    server: str,
    client: str,
    etcd: str | None,
    problem: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assets = tmp_path / "assets"
    fake_program(assets, "kube-apiserver", f"Kubernetes v{server}")
    fake_program(assets, "kubectl", f"Client Version: v{client}")
    if etcd:
        fake_program(assets, "etcd", f"etcd Version: {etcd}")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(binaries_module, "ensure_built", lambda built, _: Path("/built") / built.folder.name)
    said: list[str] = []

    found = ensure_binaries(said.append)

    assert (found.kube_apiserver.parent == assets) is (problem is None)
    assert problem is None or problem in said[0]

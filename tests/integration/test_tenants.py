"""Two teams share an operator: what each tries on the other, who refuses it, and in which words (docs/tenants.md)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.controlplane import ControlPlane
from lab.process import wait_until
from luban.adapters.balancers_http import HttpBalancers
from luban.adapters.kubernetes_api import connect
from luban.api import LubanClusterSpec, names
from luban.api.balancer import Balancer
from luban.api.libvirt_host import LibvirtHost
from luban.core.model import ClusterRef
from luban.core.usable_hosts import Applicant, usable_hosts
from luban.errors import PermanentError
from luban.render.balancer_objects import AgentProgram, balancer_objects

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
Body = dict[str, Any]
TEAMS = ("team-a", "team-b")
USER = "user"
LABEL = {names.LABEL_CLUSTER: "shop"}
BALANCER = names.balancer_name("shop", 0)
ENDPOINT = "luban.cloud/agent-endpoint"
EDIT = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "edit"},
    "rules": [
        {"apiGroups": ["luban.cloud"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps", "secrets", "pods"], "verbs": ["*"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
    ],
}
"""More than a user should have, so that what refuses is not the lack of a right where an admission policy should."""


def thing(kind: str, name: str, api: str = "v1", **further: Any) -> Body:
    """An object; `labels` and `annotations` go into its metadata."""
    metadata = {key: further.pop(key) for key in ("labels", "annotations") if key in further}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **metadata}, **further}


def config_map(name: str = BALANCER, **further: Any) -> Body:
    return thing("ConfigMap", name, **{"labels": LABEL, "data": {"balancer.json": "{}"}, **further})


def lease(name: str = BALANCER, **further: Any) -> Body:
    annotations = {ENDPOINT: "http://10.0.0.7:9180"}
    return thing("Lease", name, "coordination.k8s.io/v1", **{"labels": LABEL, "annotations": annotations, **further})


def vm() -> Body:
    spec = {
        "clusterName": "shop",
        "host": "payroll",
        "hostURI": "qemu+tls://payroll/system",
        "template": {"image": {"volume": "web.qcow2"}},
    }
    return thing("LubanVM", "shop-a", names.API_VERSION, spec=spec)


HOST = thing("LubanHost", "payroll", names.API_VERSION, spec={"libvirt": {"uri": "qemu+tls://mine/system"}})


@dataclass(frozen=True)
class Tenants:
    """The teams' namespaces, as manifests/tenant and their Roles make them."""

    plane: ControlPlane
    configs: dict[str, Path]

    def run(self, who: str, *arguments: str, body: Body | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as the user of a team, as the operator, or as `admin`."""
        config = self.configs[who]
        command = [str(self.plane.binaries.kubectl), f"--kubeconfig={config}", f"--cache-dir={config}.cache"]
        stdin = json.dumps(body) if body else ""
        return subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
        )

    def does(self, who: str, *arguments: str, body: Body | None = None) -> None:
        """What must succeed."""
        done = self.run(who, *arguments, body=body)
        assert done.returncode == 0, done.stderr

    def refused(self, who: str, *arguments: str, body: Body | None = None) -> str:
        """What is said when it is refused."""
        done = self.run(who, *arguments, body=body)
        assert done.returncode != 0, done.stdout
        return done.stderr


def make_team(plane: ControlPlane, folder: Path, team: str) -> None:
    """A namespace with the overlay that docs/tenants.md shows, a user, and what the operator made there."""
    plane.kubectl("create", "namespace", team)
    overlay = folder / team
    overlay.mkdir()
    (overlay / "tenant").symlink_to(ROOT / "manifests" / "tenant")
    (overlay / "kustomization.yaml").write_text(f"namespace: {team}\nresources: [tenant]\n")
    plane.kubectl("apply", "-k", str(overlay))
    plane.kubectl("create", "serviceaccount", USER, "-n", team)
    plane.kubectl("apply", "-n", team, "-f", "-", stdin=json.dumps(EDIT))
    plane.kubectl("create", "rolebinding", USER, "--role=edit", f"--serviceaccount={team}:{USER}", "-n", team)
    plane.kubectl("create", "secret", "generic", "user-data", "--from-literal=userdata=x", "-n", team)


@pytest.fixture(scope="module")
def tenants(luban_base: ControlPlane, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Tenants:
    folder = tmp_path_factory.mktemp("tenants")
    configs = {"operator": operator_kubeconfig, "admin": luban_base.layout.admin_kubeconfig}
    for team in TEAMS:
        make_team(luban_base, folder, team)
        configs[team] = folder / f"{team}.kubeconfig"
        luban_base.service_account_kubeconfig(team, USER, configs[team])
    found = Tenants(luban_base, configs)
    in_force = ("create", "--dry-run=server", "-n", "team-a", "-f", "-")
    # The API server takes a moment to learn of a new policy.
    for body in (vm(), config_map(), lease("shop-other")):
        wait_until(
            lambda body=body: found.run("team-a", *in_force, body=body).returncode != 0,  # type: ignore[misc]
            what="the admission policies in force",
            timeout=30,
        )
    found.does("operator", "create", "-n", "team-a", "-f", "-", body=config_map())
    found.does("operator", "create", "-n", "team-a", "-f", "-", body=vm())
    return found


# Across: the other's namespace

ACROSS = [
    ("get", "secret", "user-data"),
    ("get", "configmap", BALANCER),
    ("delete", "configmap", BALANCER),
    ("get", "pods"),
    ("delete", "pod", f"{BALANCER}"),
    ("annotate", "lease", BALANCER, f"{ENDPOINT}=http://10.0.0.9:9180"),
    ("get", "lubanclusters"),
    ("delete", "lubanvm", "shop-a"),
    ("patch", "lubanvm", "shop-a", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Failed"}}'),
]


@pytest.mark.parametrize("arguments", ACROSS, ids=" ".join)
def test_nothing_in_the_namespace_of_the_other(tenants: Tenants, arguments: tuple[str, ...]) -> None:
    said = tenants.refused("team-b", "-n", "team-a", *arguments)
    assert 'User "system:serviceaccount:team-b:user" cannot' in said
    assert 'in the namespace "team-a"' in said


@pytest.mark.parametrize("body", [config_map(), lease(), vm()], ids=lambda body: str(body["kind"]))
def test_nothing_is_made_in_the_namespace_of_the_other(tenants: Tenants, body: Body) -> None:
    said = tenants.refused("team-b", "-n", "team-a", "create", "-f", "-", body=body)
    assert 'in the namespace "team-a"' in said


@pytest.mark.parametrize(
    "arguments",
    [("create", "-f", "-"), ("delete", "lubanhost", "payroll"), ("get", "lubanhosts")],
    ids=" ".join,
)
def test_hosts_are_an_administrators(tenants: Tenants, arguments: tuple[str, ...]) -> None:
    said = tenants.refused("team-a", *arguments, body=HOST if "-" in arguments else None)
    assert "cannot" in said
    assert "at the cluster scope" in said


def test_nor_the_status_of_one(tenants: Tenants) -> None:
    tenants.does("admin", "apply", "-f", "-", body=HOST)
    patch = ("--subresource=status", "--type=merge", "-p", '{"status":{"lastReport":"2026-11-22T05:00:00Z"}}')
    assert 'resource "lubanhosts/status"' in tenants.refused("team-a", "patch", "lubanhost", "payroll", *patch)
    tenants.does("admin", "delete", "lubanhost", "payroll")


def test_a_cluster_cannot_name_a_secret_of_another_namespace(tenants: Tenants) -> None:
    reference = {"userDataSecretRef": {"name": "user-data", "namespace": "team-a"}}
    spec = {
        "hosts": [{"name": "host-b"}],
        "template": {"spec": {"image": {"volume": "web.qcow2"}, "cloudInit": reference}},
    }
    body = thing("LubanCluster", "thief", names.API_VERSION, spec=spec)
    said = tenants.refused("team-b", "-n", "team-b", "create", "-f", "-", body=body)
    assert 'unknown field "spec.template.spec.cloudInit.userDataSecretRef.namespace"' in said


@pytest.mark.parametrize(
    ("host", "pool", "reason", "words"),
    [
        ({"name": "of-a"}, "default", "NamespaceNotAllowed", "LubanHost of-a is not for namespace team-b"),
        ({"name": "of-b"}, "payroll", "PoolNotAllowed", "LubanHost of-b does not offer storage pool payroll"),
        (
            {"name": "renamed", "uri": "qemu+tls://of-a/system"},
            "default",
            "InlineURIRefused",
            "the operator takes no others (--hosts=Registered)",
        ),
        (
            {"name": "of-b", "uri": "qemu+tls://of-a/system"},
            "default",
            "HostURIDiffers",
            "but LubanHost of-b says qemu+tls://of-b/system",
        ),
    ],
)
def test_hosts_are_for_whom_their_lubanhosts_say(
    tenants: Tenants, host: Body, pool: str, reason: str, words: str
) -> None:
    """The API server takes the LubanCluster; the operator's rules, on what is stored, refuse the host."""
    registered = {}
    for team in TEAMS:
        name = team.replace("team", "of")
        libvirt = {"uri": f"qemu+tls://{name}/system", "namespaces": [team], "pools": ["default"]}
        body = thing("LubanHost", name, names.API_VERSION, spec={"libvirt": libvirt})
        stored = tenants.run("admin", "apply", "--dry-run=server", "-o", "json", "-f", "-", body=body).stdout
        registered[name] = LibvirtHost.model_validate(json.loads(stored)["spec"]["libvirt"])
    image = {"volume": "web.qcow2", "pool": pool}
    network = {"type": "Bridge", "source": "br0"}
    spec = {"hosts": [host], "template": {"spec": {"image": image, "network": network}}}
    body = thing("LubanCluster", "shop", names.API_VERSION, spec=spec)
    made = tenants.run("team-b", "-n", "team-b", "create", "--dry-run=server", "-o", "json", "-f", "-", body=body)
    assert made.returncode == 0, made.stderr
    wished = LubanClusterSpec.model_validate(json.loads(made.stdout)["spec"])
    found = usable_hosts(wished, registered, Applicant("team-b", {}), "Registered")
    assert found.uris == {}
    assert found.refusals[host["name"]].reason == reason
    assert words in found.refusals[host["name"]].message


# At home: what the operator follows


@pytest.mark.parametrize("name", [BALANCER, "shop-balancer-1", "other-balancer-0", "anything"])
def test_nobody_hangs_our_label_on_a_config_map(tenants: Tenants, name: str) -> None:
    words = "only the operator writes ConfigMaps with the label luban.cloud/cluster"
    assert words in tenants.refused("team-b", "-n", "team-b", "create", "-f", "-", body=config_map(name))
    tenants.does("team-b", "-n", "team-b", "create", "-f", "-", body=config_map(name, labels={"app": "mine"}))
    said = tenants.refused("team-b", "-n", "team-b", "label", "configmap", name, "luban.cloud/cluster=shop")
    assert words in said
    tenants.does("team-b", "-n", "team-b", "delete", "configmap", name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("delete", "configmap", BALANCER), "only the operator changes and deletes a balancer's ConfigMap"),
        (("delete", "configmap", "--all"), "only the operator changes and deletes a balancer's ConfigMap"),
        (
            ("label", "configmap", BALANCER, "luban.cloud/cluster-"),
            "only the operator changes and deletes a balancer's ConfigMap",
        ),
        (
            ("patch", "configmap", BALANCER, "-p", '{"data":{"balancer.json":"[]"}}'),
            "only the operator writes ConfigMaps with the label",
        ),
        (
            ("patch", "lubanvm", "shop-a", "--type=merge", "-p", '{"spec":{"placement":"mine"}}'),
            "only the operator writes the spec of a LubanVM",
        ),
        (
            (
                "patch",
                "lubanvm",
                "shop-a",
                "--subresource=status",
                "--type=merge",
                "-p",
                '{"status":{"phase":"Ready"}}',
            ),
            "only the operator writes the status of a LubanVM",
        ),
    ],
)
def test_what_is_the_operators_stays_so(tenants: Tenants, arguments: tuple[str, ...], words: str) -> None:
    assert words in tenants.refused("team-a", "-n", "team-a", *arguments)


def test_nobody_makes_a_vm_by_hand(tenants: Tenants) -> None:
    said = tenants.refused("team-b", "-n", "team-b", "create", "-f", "-", body=vm())
    assert "only the operator makes LubanVMs" in said


def test_an_old_config_map_with_our_label_can_be_rid_of_it(tenants: Tenants) -> None:
    """As it may be there from before the policy."""
    for name, way in (("old-1", ("label", "configmap", "old-1", "luban.cloud/cluster-")), ("old-2", ())):
        tenants.does("admin", "-n", "team-b", "create", "-f", "-", body=config_map(name))
        if way:
            tenants.does("team-b", "-n", "team-b", *way)
        tenants.does("team-b", "-n", "team-b", "delete", "configmap", name)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lease("anything"), "must be called <cluster>-balancer-<index>"),
        (lease("shop-balancer-x"), "must be called <cluster>-balancer-<index>"),
    ],
)
def test_a_lease_with_our_label_has_a_balancers_name(tenants: Tenants, body: Body, words: str) -> None:
    assert words in tenants.refused("team-b", "-n", "team-b", "create", "-f", "-", body=body)


@pytest.mark.parametrize("labels", [LABEL, {}])
def test_only_service_accounts_of_its_namespace_write_a_balancers_lease(tenants: Tenants, labels: Body) -> None:
    """Even if a Role gives somebody else the right."""
    binding = ("rolebinding", "guest", "-n", "team-a")
    tenants.does("admin", "create", *binding, "--role=edit", "--serviceaccount=team-b:user")
    try:
        said = tenants.refused("team-b", "-n", "team-a", "create", "-f", "-", body=lease(labels=labels))
        assert "only ServiceAccounts of its own namespace write the Lease of a balancer" in said
    finally:
        tenants.does("admin", "delete", *binding)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:8081", "is a loopback address"),
        ("http://169.254.169.254:80", "is a link-local address"),
        ("http://[::1]:9180", "is a loopback address"),
    ],
)
async def test_a_lease_of_ones_own_leads_nowhere_near_the_operator(
    tenants: Tenants, operator_kubeconfig: Path, endpoint: str, words: str
) -> None:
    tenants.does("team-b", "-n", "team-b", "create", "-f", "-", body=lease(annotations={ENDPOINT: endpoint}))
    cluster = await connect(str(operator_kubeconfig))
    balancers, ref = HttpBalancers(), ClusterRef("team-b", "shop")
    try:
        found = await cluster.balancer_endpoint(ref, BALANCER)
        assert found == endpoint
        report = await balancers.report(ref, BALANCER, found, members=0)
        assert not report.reachable
        assert words in report.message
    finally:
        await balancers.close()
        await cluster.close()
        tenants.does("team-b", "-n", "team-b", "delete", "lease", BALANCER)


# The operator's own rights


@pytest.mark.parametrize(
    "body",
    [
        config_map("kube-root-ca.crt"),
        config_map(BALANCER, labels={}),
        config_map("shop-balancer-x"),
        config_map("other-balancer-0"),
    ],
)
def test_the_operator_makes_no_other_config_maps(tenants: Tenants, body: Body) -> None:
    said = tenants.refused("operator", "-n", "team-b", "create", "-f", "-", body=body)
    assert "the operator writes only ConfigMaps with the label" in said


def test_the_operator_deletes_and_changes_no_other_config_map(tenants: Tenants) -> None:
    tenants.does("admin", "-n", "team-b", "create", "-f", "-", body=config_map("precious", labels={}))
    for arguments in (
        ("delete", "configmap", "precious"),
        ("patch", "configmap", "precious", "-p", '{"data":{"a":"b"}}'),
        ("label", "configmap", "precious", "luban.cloud/cluster=precious"),
    ):
        assert "the operator writes only ConfigMaps" in tenants.refused("operator", "-n", "team-b", *arguments)
    tenants.does("admin", "-n", "team-b", "delete", "configmap", "precious")


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
async def test_a_namespace_without_the_binding_is_told_the_remedy(
    tenants: Tenants, operator_kubeconfig: Path, kind: str
) -> None:
    ref = ClusterRef("default", "shop")
    cluster = await connect(str(operator_kubeconfig))
    try:
        work: Coroutine[Any, Any, object] = (
            cluster.read_secret(ref, "user-data", "userdata")
            if kind == "Secret"
            else cluster.apply_config_map(ref, BALANCER, {}, {})
        )
        with pytest.raises(PermanentError, match=r"ClusterRole luban-operator-namespace .* in namespace default") as it:
            await work
        assert it.value.reason == "Forbidden"
    finally:
        await cluster.close()


@pytest.mark.parametrize("who", ["system:serviceaccount:kube-system:generic-garbage-collector", "admin-by-role"])
def test_who_cleans_up_may_delete(tenants: Tenants, who: str) -> None:
    """The garbage collector's rights are in the API server's own ClusterRoles; a person's by cluster-admin."""
    name = f"gone-{len(who)}"
    if who == "admin-by-role":
        tenants.does("admin", "create", "clusterrolebinding", who, "--clusterrole=cluster-admin", f"--user={who}")
    tenants.does("admin", "-n", "team-a", "create", "-f", "-", body=config_map(f"{name}-balancer-0", labels=LABEL))
    tenants.does("admin", "-n", "team-a", "delete", "configmap", f"{name}-balancer-0", f"--as={who}")


def balancers_of(cluster: str, place: int, **spec: Any) -> Body:
    """One of the objects that the operator makes for a cluster of team-b; `spec`: its fields to be changed."""
    program = AgentProgram("luban-cloud", names.OPERATOR_USER)
    body = dict(balancer_objects("team-b", cluster, Balancer(), 1, program)[place])
    changed = {key: {**body[key], **value} if isinstance(value, dict) else value for key, value in spec.items()}
    return {**body, **changed}


SERVICE_ACCOUNT, ROLE, ROLE_BINDING, _, FRONT, _, STATEFUL_SET = range(7)
SECRETS = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
ALL_CONFIG_MAPS = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
STRANGER = [{"kind": "ServiceAccount", "name": "default", "namespace": "team-b"}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (balancers_of("mine", SERVICE_ACCOUNT, metadata={"name": "other"}), "the operator writes only objects"),
        (balancers_of("mine", SERVICE_ACCOUNT, metadata={"labels": {}}), "the operator writes only objects"),
        (balancers_of("mine", ROLE, rules=SECRETS), "rights to a cluster's own ConfigMaps"),
        (balancers_of("mine", ROLE, rules=ALL_CONFIG_MAPS), "rights to a cluster's own ConfigMaps"),
        (balancers_of("mine", ROLE_BINDING, subjects=STRANGER), "rights to a cluster's own balancers"),
        (balancers_of("mine", FRONT, spec={"externalIPs": ["192.0.2.1"]}), "no Services for other addresses"),
    ],
)
def test_the_operator_makes_nothing_but_balancers(tenants: Tenants, body: Body, words: str) -> None:
    # Nobody may bind a Role that is not there.
    tenants.does("operator", "-n", "team-b", "apply", "-f", "-", body=balancers_of("mine", ROLE))
    assert words in tenants.refused("operator", "-n", "team-b", "create", "-f", "-", body=body)


def test_balancers_pods_get_no_secrets(tenants: Tenants) -> None:
    body = balancers_of("mine", STATEFUL_SET)
    pod = body["spec"]["template"]["spec"]
    pod["volumes"] = [*pod["volumes"], {"name": "loot", "secret": {"secretName": "user-data"}}]
    assert "no Secrets" in tenants.refused("operator", "-n", "team-b", "create", "-f", "-", body=body)


def test_the_operator_makes_the_balancers_of_two_teams(tenants: Tenants) -> None:
    program = AgentProgram("luban-cloud", names.OPERATOR_USER)
    for team in ("team-a", "team-b"):
        for body in balancer_objects(team, "twin", Balancer(), 1, program):
            tenants.does("operator", "-n", team, "create", "-f", "-", body=body)


def test_the_operator_writes_no_leases_of_others(tenants: Tenants) -> None:
    body = thing("Lease", "somebodys", "coordination.k8s.io/v1")
    said = tenants.refused("operator", "-n", "team-b", "create", "-f", "-", body=body)
    assert "the operator writes Leases in its own namespace alone" in said
    tenants.does("admin", "-n", "team-b", "create", "-f", "-", body=body)
    said = tenants.refused("operator", "-n", "team-b", "delete", "lease", "somebodys")
    assert "deletes others only of balancers" in said

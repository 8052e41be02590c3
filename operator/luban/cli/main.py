"""`luban`: the operator's programs under one command."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
from typing import Any

import click

from luban import __version__
from luban.api.names import OPERATOR_USER
from luban.errors import LubanError
from luban.logs import configure_logging

LAZY = {
    "balancer-agent": ("luban.balancer_agent.command", "balancer_agent_command"),
    "node-agent": ("luban.node_agent.command", "node_agent_command"),
}
"""Commands of other programs, imported only when asked for: the agents' machines have no libvirt."""


class _Programs(click.Group):
    """A group whose other programs are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LAZY:
            return super().get_command(ctx, cmd_name)
        module, attribute = LAZY[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_Programs, context_settings={"auto_envvar_prefix": "LUBAN"})
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Log every step, also of the libraries.")
def main(verbose: bool) -> None:
    """Luban Cloud: web services in KVM virtual machines, run by Kubernetes."""
    configure_logging(verbose=verbose)


@main.command()
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False),
    envvar="KUBECONFIG",
    show_envvar=True,
    help="Kubeconfig file. Default: the Pod's service account, or kubectl's own default.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    help="Namespace to watch; may be given more than once. Default: all.",
)
@click.option("--listen-address", default="0.0.0.0", show_default=True, help="Address of /metrics and /healthz.")  # noqa: S104
@click.option("--listen-port", default=8081, show_default=True, type=click.IntRange(1, 65535), help="Their port.")
@click.option(
    "--hosts",
    type=click.Choice(["Any", "Registered"], case_sensitive=False),
    default="Any",
    show_default=True,
    help="Which hosts LubanClusters may use. Registered: those for which there is a LubanHost of the same name with "
    "spec.libvirt. Any: also others, each at the uri that the LubanCluster gives.",
)
@click.option(
    "--allow-insecure-hosts",
    is_flag=True,
    help="Take hosts with which anybody could be at the other end: qemu+tcp URIs, and no_verify=1. They get the VMs' "
    "cloud-init user data.",
)
@click.option(
    "--user-networking",
    is_flag=True,
    help="Take network type User on this machine: for laptops and labs, as its guests reach all that listens on "
    "127.0.0.1.",
)
@click.option(
    "--agent-network",
    "agent_networks",
    multiple=True,
    type=ipaddress.ip_network,
    metavar="CIDR",
    help="Network where balancer agents are asked, such as that of the Pods; may be given more than once. Whoever may "
    "write Leases says where an agent is. Default: all addresses but loopback, link-local, multicast, "
    "translated (6to4, Teredo, NAT64) ones, and clouds' metadata.",
)
@click.option(
    "--leader-election/--no-leader-election",
    default=True,
    show_default=True,
    help="Act only while holding a Lease, so that of several operators one acts. Another takes over after about "
    "15 s, and at once after a clean stop.",
)
@click.option("--lease-namespace", default="", help="Namespace of that Lease. Default: the Pod's, else luban-system.")
@click.option(
    "--lease-name",
    default="luban-operator",
    show_default=True,
    help="Its name: another one for each set of operators that watch other namespaces.",
)
@click.option(
    "--balancer-image",
    default="",
    help="Image of the balancers' Pods: the operator makes a StatefulSet, Services and rights for each LubanCluster. "
    "Default: it makes none, and agents are run otherwise.",
)
@click.option(
    "--agents-operator",
    default=OPERATOR_USER,
    show_default=True,
    help="User whose token those Pods' agents give their reports to: this operator's ServiceAccount.",
)
def controller(**options: Any) -> None:
    """Run the operator: keep every LubanCluster as its spec says."""
    from luban.controller.program import Options, run

    try:
        asyncio.run(run(Options(**options)))
    except LubanError as error:
        raise click.ClickException(error.message) from error


@main.command()
@click.argument("name")
@click.option("-n", "--namespace", help="Namespace of the LubanCluster. Default: that of the kubeconfig's context.")
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Kubeconfig file. Default: as kubectl.")
@click.option("--context", help="Context of the kubeconfig. Default: the current one.")
def explain(name: str, namespace: str | None, kubeconfig: str | None, context: str | None) -> None:
    """Say why the operator decided what it did for the LubanCluster NAME, and where the next VM would go."""
    from luban.adapters.kubernetes_api.reader import read_cluster
    from luban.cli.explain import explain_objects

    try:
        cluster, vms = asyncio.run(read_cluster(kubeconfig, context, namespace, name))
    except LubanError as error:
        raise click.ClickException(error.message) from error
    click.echo(explain_objects(cluster, vms))

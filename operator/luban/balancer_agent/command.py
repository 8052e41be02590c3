"""The command line of the balancer agent; `luban balancer-agent`."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import click

from luban.balancer_agent.agent import AgentOptions, run
from luban.balancer_agent.gate import DEFAULT_OPERATOR
from luban.programs import option, run_program

EVERYWHERE = "0.0.0.0"  # noqa: S104 (the operator asks from another machine)
_NAME = re.compile(r"(.+)-balancer-([0-9]{1,3})")
_PORT = click.IntRange(1, 65535)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_option = functools.partial(option, "balancer-agent")


@click.command("balancer-agent")
@_option("--name", "Name of the balancer, <cluster>-balancer-<index>, instead of --cluster and --index.", default="")
@_option("--cluster", "Name of the LubanCluster.", default="")
@_option("--index", "Which of the cluster's balancers this is.", type=click.IntRange(0, 999), default=0)
@_option("--namespace", "Namespace of the LubanCluster.", default="default")
@_option(
    "--state-dir",
    "Folder for httpd's configuration and logs, and for what the agent must remember when it is restarted.",
    type=_FOLDER,
    default=Path("/run/luban"),
)
@_option("--httpd-binary", "httpd program. Default: apache2 or httpd, from PATH or the usual places.", default="")
@_option("--listen-address", "IP address where httpd listens, instead of the cluster's listen.address.", default="")
@_option(
    "--manager-address",
    "Loopback address of the agent's private way into httpd. Default: --report-address if it is one, else 127.0.0.1.",
    default="",
)
@_option("--manager-port", "Port of the private way.", type=_PORT, default=9181)
@_option("--report-address", "Address of the agent's report, metrics and probes.", default=EVERYWHERE)
@_option("--report-port", "Port of the report, metrics and probes.", type=_PORT, default=9180)
@_option(
    "--advertise",
    "Base URL at which the operator reaches the report. Default: report address (or $POD_IP) and port.",
    default="",
)
@_option("--kubeconfig", "kubeconfig file. Default: $KUBECONFIG, else the Pod's ServiceAccount.", default="")
@_option(
    "--config-dir",
    "Read balancer.json from this folder instead of from the ConfigMap: no API server is needed.",
    type=_FOLDER,
    default=None,
)
@_option(
    "--stop-seconds",
    "Time in seconds that requests in flight get when the agent is told to end.",
    type=click.IntRange(1, 3600),
    default=20,
)
@_option("--node", "Kubernetes node that this runs on: VMs on other hosts are preferred for it.", default="")
@_option("--operator", "User whose token opens the report: the operator's ServiceAccount.", default=DEFAULT_OPERATOR)
@_option(
    "--open-reports",
    "Give the report to anybody who reaches the port. --config-dir does so in any case.",
    is_flag=True,
)
def balancer_agent_command(name: str, **options: Any) -> None:
    """Run Apache httpd as a LubanCluster's balancer, and keep its members as the operator wants them."""
    options.update(_identity(name, options["cluster"], options["index"]))
    options["advertise"] = options["advertise"] or _endpoint(options)
    try:
        run_program(functools.partial(run, AgentOptions(**options)))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _identity(name: str, cluster: str, index: int) -> dict[str, Any]:
    """Cluster and index, from the name if it is given. Raises click.UsageError if neither tells."""
    if match := _NAME.fullmatch(name):
        return {"cluster": match[1], "index": int(match[2])}
    if name or not cluster:
        raise click.UsageError("give --cluster, or --name as <cluster>-balancer-<index>")
    return {"cluster": cluster, "index": index}


def _endpoint(options: dict[str, Any]) -> str:
    """URL of the report. Raises click.UsageError if nothing tells under which address others reach it."""
    address, port = options["report_address"], options["report_port"]
    host = os.environ.get("POD_IP", "") if address in (EVERYWHERE, "::") else address
    if not host and options["config_dir"] is None:
        raise click.UsageError("--report-address means all addresses: give --advertise or set POD_IP")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The command line of the node agent; `luban node-agent`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from luban.api.units import Duration
from luban.node_agent.agent import AgentOptions, run
from luban.programs import option, run_program

_DURATION = TypeAdapter(Duration)
_ROOT = click.Path(file_okay=False, path_type=Path)
_option = functools.partial(option, "node-agent")


class _Seconds(click.ParamType[float]):
    """A duration such as 250ms, 1s or 1m, as seconds within bounds."""

    name = "duration"

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = value if isinstance(value, float) else _DURATION.validate_python(value).seconds
        except ValidationError:
            self.fail(f"{value!r} {Duration.remedy}", param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{value} is not within {self._least:g} to {self._most:g} seconds", param, ctx)
        return seconds


@click.command("node-agent")
@_option("--node-name", "Name of the Kubernetes node; the LubanHost gets it.", envvar="NODE_NAME", required=True)
@_option(
    "--kubeconfig",
    "kubeconfig file. Default: $KUBECONFIG, else the Pod's ServiceAccount.",
    type=click.Path(exists=True, dir_okay=False),
    default=None,
)
@_option("--proc-root", "Where /proc of the host is mounted.", type=_ROOT, default=Path("/proc"))
@_option("--sys-root", "Where /sys of the host is mounted.", type=_ROOT, default=Path("/sys"))
@_option(
    "--resync",
    "Time between two readings while nothing happens, 0.1s to 5s: not every change of a bond has an event.",
    type=_Seconds(0.1, 5.0),
    default="1s",
)
@_option("--no-events", "Read only every --resync, without the kernel's events.", is_flag=True)
@_option(
    "--heartbeat",
    "Time after which the LubanHost is written although nothing changed, 1s to 60s.",
    type=_Seconds(1.0, 60.0),
    default="60s",
)
@_option("--listen-address", "Address of /metrics, /healthz and /readyz.", default="0.0.0.0")  # noqa: S104 (Prometheus asks)
@_option("--listen-port", "Their port.", type=click.IntRange(1, 65535), default=9182)
def node_agent_command(no_events: bool, **options: Any) -> None:
    """Watch the bonds of this node and report their health in its LubanHost. Needs the host's network namespace."""
    run_program(functools.partial(run, AgentOptions(events=not no_events, **options)))

"""`python -m lab up|down|destroy|status`."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from lab.datacentre import DataCentre
from lab.paths import LAST_BASE, Layout, cache_dir
from lab.process import Daemon, LabError, running

INTERRUPTED = 130
"""Exit status of what Ctrl-C ended, as shells have it."""
console = Console(stderr=True, highlight=False)


def make_lab(base: int | None) -> DataCentre:
    """The lab of this base, with progress on standard error."""
    begun = time.monotonic()
    return DataCentre(
        Layout.from_environment(base),
        lambda text: console.print(f"[dim]{time.monotonic() - begun:6.1f} s[/]  {text}", soft_wrap=True),
    )


@click.group()
@click.option("--base", type=click.IntRange(1, LAST_BASE), help="Third octet of the lab's addresses. Default: 16.")
@click.pass_context
def main(context: click.Context, base: int | None) -> None:
    """A data centre on one machine: Kubernetes control plane, two KVM hosts, Apache httpd, Prometheus."""
    context.obj = base


@main.command()
@click.option("--apply/--no-apply", "apply_", default=False, help="Also create the sample LubanCluster.")
@click.pass_obj
def up(base: int | None, apply_: bool) -> None:
    """Bring the lab up; returns when everything answers."""
    lab = make_lab(base)
    lab.up()
    if apply_:
        lab.apply_sample()
        lab.wait_served()
    print_addresses(lab)
    if not lab.has_cluster():
        remedy = ".venv/bin/python -m lab up --apply"
        console.print(f"Nothing is served until a LubanCluster is applied: {remedy}", soft_wrap=True)


@main.command()
@click.pass_obj
def down(base: int | None) -> None:
    """Stop the lab; objects and logs stay."""
    make_lab(base).down()


@main.command()
@click.option("--cache", is_flag=True, help="Also remove the built binaries and images, unless other labs run.")
@click.option("--last", is_flag=True, help="Fail if other labs run: what they all need shall be removed next.")
@click.pass_obj
def destroy(base: int | None, cache: bool, last: bool) -> None:
    """Stop the lab and remove all that it made. Labs of other bases that still run are named."""
    lab = make_lab(base)
    lab.destroy()
    others = [other.base for other in lab.layout.others() if running(other.state)]
    for other in others:
        console.print(
            f"a lab with base {other} still runs; LUBAN_LAB_BASE={other} make lab-down stops it, "
            f"LUBAN_LAB_BASE={other} make clean removes it",
            soft_wrap=True,
        )
    if others and (cache or last):
        raise LabError("what other labs need stays: .venv and the cache")
    if cache:
        shutil.rmtree(cache_dir(), ignore_errors=True)


@main.command()
@click.pass_obj
def status(base: int | None) -> None:
    """Which parts run."""
    layout = Layout.from_environment(base)
    for record in sorted((layout.state / "run").glob("*.json")):
        daemon = Daemon(record.stem, layout.state)
        click.echo(f"{daemon.name:24} {f'pid {daemon.pid()}' if daemon.pid() else 'not running'}")


def print_addresses(lab: DataCentre) -> None:
    """Say where everything is, and what shells need: one line that can be copied whole."""
    console.print(f"service     {lab.addresses.service}/")
    console.print(f"balancer    {lab.addresses.agent}/metrics")
    console.print(f"operator    {lab.addresses.operator}/metrics")
    console.print(f"Prometheus  {lab.addresses.prometheus}/")
    console.print("For kubectl and `kubectl luban explain luban`, in each shell:")
    console.print(
        environment(lab.layout.admin_kubeconfig, lab.control_plane.binaries.kubectl), soft_wrap=True, markup=False
    )


def environment(kubeconfig: Path, kubectl: Path) -> str:
    """The command that lets a shell reach the lab, with kubectl and our own `luban` and `kubectl luban` in its PATH."""
    ours = Path(sys.executable).parent
    return f"export KUBECONFIG={shlex.quote(str(kubeconfig))} PATH={shlex.quote(f'{kubectl.parent}:{ours}')}:$PATH"


def run() -> None:
    """Run the command; a LabError is a message, not a traceback, and so is Ctrl-C."""
    try:
        sys.exit(main(prog_name="python -m lab", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        console.print(
            "interrupted: what is up stays; `make lab-down` stops it, `make clean` removes it", soft_wrap=True
        )
        sys.exit(INTERRUPTED)
    except LabError as error:
        console.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    run()

"""`python -m lab.bonds`: the paper's test of network fault tolerance, in every bonding mode."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from lab.binaries import ensure_binaries
from lab.bonds.experiment import as_json, run_experiment
from lab.bonds.guest import BondGuest, Fault
from lab.bonds.image import ensure_bond_guest
from lab.bonds.report import plot_bytes, plot_comparison, results_table
from lab.bonds.reporting import AgentObserver, watched
from lab.bonds.settings import Mode
from lab.controlplane import ControlPlane
from lab.hosts import HOST_NAMES
from lab.image.progress import Progress
from lab.paths import Layout
from lab.process import LabError

TABLE_WIDTH = 150
BASE = 124
"""Third octet of the control plane's addresses."""


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("bonds-output"), show_default=True
)
@click.option(
    "--modes",
    type=click.Choice([str(mode) for mode in Mode]),
    multiple=True,
    help="Bonding mode; may be given more than once. Default: all.",
)
@click.option(
    "--faults",
    type=click.Choice([str(fault) for fault in Fault]),
    multiple=True,
    default=(str(Fault.PULLED), str(Fault.SILENT)),
    show_default=True,
    help="What happens to a cable; may be given more than once.",
)
@click.option(
    "--observer",
    "chosen",
    type=click.Choice(["agent", "kernel"]),
    default="agent",
    show_default=True,
    help="Who says what is wrong. agent: the node agent, through a real API server. kernel: its netlink events alone.",
)
def main(output: Path, modes: tuple[str, ...], faults: tuple[str, ...], chosen: str) -> None:
    """Break each cable of a bond under traffic, in a QEMU guest, and count what is lost.

    Takes about 40 s a mode; the first run on a machine builds the guest, a minute more. Writes results.json, fig14.png
    (bytes of each port over time) and modes.png (the modes compared) to the output folder.
    """
    progress, console = Progress(), Console(highlight=False)
    try:
        with ExitStack() as stack:
            guest = stack.enter_context(BondGuest(ensure_bond_guest(progress)))
            progress.say(f"guest ready after {guest.boot_seconds:.1f} s")
            observer = _agent(stack, guest, progress) if chosen == "agent" else None
            wanted = [Mode(mode) for mode in modes] or list(Mode)
            experiment = run_experiment(
                guest, wanted, [Fault(fault) for fault in faults], observer=observer, progress=progress
            )
    except LabError as error:
        raise click.ClickException(str(error)) from error
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(as_json(experiment))
    plot_bytes(experiment, output / "fig14.png")
    plot_comparison(experiment, output / "modes.png")
    if not console.is_terminal:
        console = Console(highlight=False, width=TABLE_WIDTH)
    console.print(results_table(experiment))
    console.print(f"written: {output}/results.json, fig14.png, modes.png")
    sys.exit(0)


def _agent(stack: ExitStack, guest: BondGuest, progress: Progress) -> AgentObserver:
    """The node agent in the guest, and a control plane that it reports to."""
    state = Path(stack.enter_context(TemporaryDirectory(prefix="luban-bonds-")))
    plane = ControlPlane(Layout(BASE, state), ensure_binaries(progress.say))
    stack.callback(plane.destroy)
    with progress.step("control plane"):
        plane.up()
        plane.kubectl("apply", "-k", str(Path(__file__).parents[2] / "manifests" / "base"))
    with progress.step("node agent"):
        return stack.enter_context(watched(guest, plane, HOST_NAMES[0]))


if __name__ == "__main__":
    main()

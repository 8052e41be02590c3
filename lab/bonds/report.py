"""The experiment's results as a table and as plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lab.bonds.data import Experiment, ModeRun, Outcome
from lab.bonds.settings import NEAR, NEAR_PORTS

STEP_SECONDS = 0.1
"""How far apart the samples are."""


def results_table(experiment: Experiment) -> Table:
    """One line for each fault of each mode."""
    table = Table(title=f"Failover by mode; verdicts by {experiment.observer}")
    table.add_column("mode")
    table.add_column("cable")
    table.add_column("fault")
    for name in (
        "noticed\nms",
        "healthy\nafter s",
        "lost",
        "lost at\nreturn",
        "of",
        "longest\ngap ms",
        "stream\nrate %",
    ):
        table.add_column(name, justify="right")
    table.add_column("verdicts")
    for run in experiment.runs:
        for outcome in run.outcomes:
            table.add_row(*_row(outcome))
        table.add_section()
    return table


def _row(outcome: Outcome) -> list[str]:
    noticed = "never" if outcome.detected_ms is None else f"{outcome.detected_ms:.0f}"
    recovered = "-" if outcome.recovered_s is None else f"{outcome.recovered_s:.2f}"
    verdicts = " > ".join([outcome.before, *outcome.during, outcome.after])
    return [
        str(outcome.mode),
        str(outcome.cable),
        str(outcome.fault),
        noticed,
        recovered,
        str(outcome.lost),
        str(outcome.lost_at_return),
        str(outcome.sent),
        f"{outcome.outage_ms:.0f}",
        f"{100 * outcome.throughput:.0f}",
        verdicts,
    ]


def rates(run: ModeRun, interface: str) -> tuple[list[float], list[float]]:
    """Seconds since the run's first sample, and kilobytes a second in both directions there."""
    begun = run.samples[0].at
    seconds, kilobytes = [], []
    for earlier, later in zip(run.samples, run.samples[1:], strict=False):
        if later.at > earlier.at:
            seconds.append(later.at - begun)
            kilobytes.append((later.carried(interface) - earlier.carried(interface)) / (later.at - earlier.at) / 1000)
    return seconds, kilobytes


def plot_bytes(experiment: Experiment, path: Path) -> None:
    """The paper's Fig. 14, one panel for each mode: bytes of both ports and of the bond over time, faults marked."""
    runs = [run for run in experiment.runs if run.samples]
    figure, panels = _subplots(len(runs))
    for run, axes in zip(runs, panels, strict=True):
        begun = run.samples[0].at
        axes.plot(*rates(run, NEAR), color="silver", linewidth=2.5, label=NEAR)
        for port in NEAR_PORTS:
            axes.plot(*rates(run, port), linewidth=1.0, label=port)
        for outcome in run.outcomes:
            since, until = outcome.broken_at - begun, outcome.restored_at - begun
            axes.axvspan(since, until, color="tab:red", alpha=0.12)
            label = f"cable {outcome.cable}\n{outcome.fault}\n{outcome.lost + outcome.lost_at_return} lost"
            axes.annotate(label, (since, 0.98), xycoords=("data", "axes fraction"), fontsize=7, va="top")
        axes.set(ylabel="kB/s, both directions", title=str(run.mode))
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.35)
        axes.legend(loc="lower right", fontsize=7, ncols=3)
    panels[-1].set_xlabel("seconds")
    _save(figure, path)


def plot_comparison(experiment: Experiment, path: Path) -> None:
    """Modes side by side: packets lost and time to notice, the mean of both cables for each fault."""
    outcomes = experiment.outcomes()
    modes = [run.mode for run in experiment.runs]
    faults = list(dict.fromkeys(outcome.fault for outcome in outcomes))
    figure, (losses, notice) = _subplots(2)
    width = 0.8 / max(1, len(faults))
    for number, fault in enumerate(faults):
        places = [index + (number - (len(faults) - 1) / 2) * width for index in range(len(modes))]
        chosen = [[one for one in outcomes if (one.mode, one.fault) == (mode, fault)] for mode in modes]
        lost = [_mean([float(one.lost + one.lost_at_return) for one in several]) for several in chosen]
        noticed = [_mean([one.detected_ms for one in several if one.detected_ms is not None]) for several in chosen]
        for axes, values, form in ((losses, lost, "{:.1f}"), (notice, noticed, "{:.0f}")):
            bars = axes.bar(places, [value or 0 for value in values], width, label=str(fault))
            axes.bar_label(bars, ["never" if value is None else form.format(value) for value in values], fontsize=7)
    losses.set(ylabel="probes lost a fault", title="One probe in 10 ms on each of two flows")
    notice.set(ylabel="ms", title=f"From the fault to the first report ({experiment.observer})")
    for axes in (losses, notice):
        axes.set_xticks(range(len(modes)), [str(mode) for mode in modes])
        # One lost probe and a thousand are both to be seen.
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(top=5 * axes.get_ylim()[1])
        axes.legend(fontsize=7)
    _save(figure, path)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _subplots(rows: int) -> tuple[Any, list[Any]]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(rows, 1, figsize=(10, 2.8 * rows), squeeze=False)
    return figure, list(panels[:, 0])


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

"""The paper's Fig. 15: sessions of each VM over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.demo.observer import Snapshot


def plot_sessions(
    seen: Sequence[Snapshot], marks: Sequence[tuple[float, str]], path: Path, *, upper: int, lower: int
) -> None:
    """Write a PNG: one line a VM, both thresholds, and a mark where something was done.

    `marks`: moments on the monotonic clock with a word each. `upper`, `lower`: thresholds in sessions.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    begun = seen[0].at
    names = list(dict.fromkeys(name for snapshot in seen for name in snapshot.phases()))
    figure, axes = pyplot.subplots(figsize=(10, 5))
    for index, name in enumerate(names):
        points = [
            (it.at - begun, it.sessions()[name])
            for it in seen
            if it.phases().get(name) == "Ready" and name in it.sessions()
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=f"VM{index + 1} {name}")
    axes.axhline(upper, linestyle="--", color="tab:red", linewidth=0.8, label=f"upper {upper}")
    axes.axhline(lower, linestyle="--", color="tab:blue", linewidth=0.8, label=f"lower {lower}")
    for at, word in marks:
        axes.axvline(at - begun, color="grey", linewidth=0.6)
        axes.annotate(word, (at - begun, axes.get_ylim()[1]), rotation=90, fontsize=7, va="top", ha="right")
    axes.set(xlabel="seconds", ylabel="active sessions", title="Sessions of each VM (Luban cloud, Fig. 15, compressed)")
    axes.legend(loc="upper right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

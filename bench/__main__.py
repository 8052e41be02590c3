"""`python -m bench NAME`: run one benchmark, or all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

FOLDER = Path(__file__).parent
SUPPORT = {"__init__", "__main__", "result"}


def names() -> list[str]:
    """Benchmarks that exist."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in SUPPORT)


def run(name: str) -> bool:
    """Run one; returns whether it succeeded. After Ctrl-C, which it hears too, its clean-up is waited for."""
    with subprocess.Popen([sys.executable, "-m", f"bench.{name}"]) as benchmark:
        try:
            return benchmark.wait() == 0
        except KeyboardInterrupt:
            # subprocess.run would kill it a quarter of a second later, with all that it started still running.
            benchmark.wait()
            raise


@click.command()
@click.argument("name", type=click.Choice([*names(), "all"]), default="all")
def main(name: str) -> None:
    """Run benchmark NAME (default: all); each prints one line of JSON on standard output."""
    chosen = names() if name == "all" else [name]
    failed = [one for one in chosen if not run(one)]
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

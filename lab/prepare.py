"""`python -m lab.prepare`: build what the tests need (control plane, guest images) before pytest starts its clocks."""

from __future__ import annotations

import sys
import time

from rich.console import Console

from lab.binaries import ensure_binaries
from lab.bonds.image import ensure_bond_guest
from lab.image.build import ensure_image
from lab.process import LabError

console = Console(stderr=True, highlight=False)


def main() -> None:
    """Build what is missing, with progress."""
    begun = time.monotonic()

    def progress(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - begun:6.1f} s[/]  {text}", soft_wrap=True)

    try:
        ensure_binaries(progress)
        ensure_image()
        ensure_bond_guest()
    except LabError as error:
        console.print(f"[red]error[/] {error}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

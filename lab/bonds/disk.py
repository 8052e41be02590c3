"""Puts the bond guest's root disk together: Debian and the node agent's libraries in one ext4 file system.

Run as a program, because files must get their owners: root does it as it is, an ordinary user under fakeroot.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from lab.image import disk
from lab.image.commands import run

SIZE = "640M"
"""Size of the file system; the file is sparse."""

LIBRARIES = disk.SERVICE
"""Where the Python packages are in the guest, without the leading slash."""

GATEWAY = "10.0.2.2"
"""The guest's name for the machine that runs QEMU (fixed by QEMU's user-mode network)."""

API_SERVER = "kubernetes.default.svc"
"""A name in the certificate of every API server: by it the guest reaches ours, whose address it cannot reach."""

HOSTS = f"127.0.0.1 localhost\n{GATEWAY} {API_SERVER}\n"


def assemble(debian: Path, packages: Path, target: Path) -> None:
    """Write the raw disk `target` out of a tar archive and a folder; as an ordinary user through fakeroot."""
    prefix = [] if os.geteuid() == 0 else ["fakeroot", "--"]
    top = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "lab.bonds.disk", str(debian), str(packages), str(target)]
    run([*prefix, *command], env={**os.environ, "PYTHONPATH": top})


def _write(debian: Path, packages: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        run(["tar", "--extract", "--file", str(debian), "--directory", str(tree), "--exclude=./dev/*"])
        shutil.copytree(packages, tree / LIBRARIES, ignore=shutil.ignore_patterns("__pycache__", "bin"))
        for path in [tree / LIBRARIES, *(tree / LIBRARIES).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        (tree / "etc/hosts").write_text(HOSTS)
        disk._compile(tree)
        run(["mke2fs", "-q", "-t", "ext4", "-L", "luban-bonds", "-d", str(tree), str(target), SIZE])


if __name__ == "__main__":
    _write(*map(Path, sys.argv[1:4]))

"""Puts the root disk together: Debian, drivers, Python packages and the web service in one ext4 file system.

Run as a program, because files must get their owners: root does it as it is, an ordinary user under fakeroot.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.image.commands import run
from lab.image.rootfs import PYTHON

SIZE = "1G"
"""Size of the base disk. An overlay may be larger: the guest grows its file system to fit."""

APP_ID = 990
"""User and group that the web service runs as in the guest."""

LIB = Path("usr/lib/luban")
SERVICE = Path("opt/luban")
HOME = Path("var/lib/luban")


@dataclass(frozen=True)
class Parts:
    """Where the parts of the disk are and where it goes; paths as text, so that they pass as JSON."""

    rootfs: str
    """tar archive"""
    modules: str
    """folder with a folder of drivers per group"""
    packages: str
    """folder of Python packages"""
    app: str
    """folder of the package luban_app"""
    guest: str
    """folder of the guest's scripts"""
    target: str
    """qcow2 file to write"""


def assemble(parts: Parts) -> None:
    """Write the disk; as an ordinary user through fakeroot."""
    prefix = [] if os.geteuid() == 0 else ["fakeroot", "--"]
    top = str(Path(__file__).parents[2])
    run(
        [*prefix, sys.executable, "-m", "lab.image.disk", json.dumps(asdict(parts))],
        env={**os.environ, "PYTHONPATH": top},
    )


def _write(parts: Parts) -> None:
    target = Path(parts.target)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        run(["tar", "--extract", "--file", parts.rootfs, "--directory", str(tree), "--exclude=./dev/*"])
        _add_guest(tree, Path(parts.guest), Path(parts.modules))
        _add_service(tree, Path(parts.packages), Path(parts.app))
        _compile(tree)
        raw = Path(scratch) / "root.ext4"
        run(["mke2fs", "-q", "-t", "ext4", "-L", "luban-root", "-d", str(tree), str(raw), SIZE])
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target)])


def _put(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _add_guest(tree: Path, guest: Path, modules: Path) -> None:
    _put(guest / "luban-init", tree / "usr/sbin/luban-init", 0o755)
    for name in ("poweroff", "reboot", "shutdown"):
        _put(guest / "shutdown", tree / "usr/sbin" / name, 0o755)
    _put(guest / "udhcpc", tree / LIB / "udhcpc", 0o755)
    _put(guest / "serve.py", tree / LIB / "serve.py")
    for module in modules.glob("*/*.ko"):
        _put(module, tree / LIB / "modules" / module.parent.name / module.name)
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    resolv = tree / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("/run/resolv.conf")


def _add_service(tree: Path, packages: Path, app: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "bin")
    shutil.copytree(packages, tree / SERVICE, ignore=ignore)
    shutil.copytree(app, tree / SERVICE / app.name, ignore=ignore)
    for path in [tree / SERVICE, *(tree / SERVICE).rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with (tree / "etc/passwd").open("a") as users:
        users.write(f"luban:x:{APP_ID}:{APP_ID}:web service:/{HOME}:/usr/sbin/nologin\n")
    with (tree / "etc/group").open("a") as groups:
        groups.write(f"luban:x:{APP_ID}:\n")
    (tree / HOME).mkdir(parents=True, exist_ok=True)
    os.chown(tree / HOME, APP_ID, APP_ID)


def _compile(tree: Path) -> None:
    """Compile with the guest's own Python, run in place. "Unchecked": no look at the sources at each start."""
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    run(
        [
            *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
            *(str(tree / f"usr/bin/python{PYTHON}"), "-I", "-S", "-m", "compileall", "-q", "-f"),
            *("--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/"),
            *(str(tree / SERVICE), str(tree / f"usr/lib/python{PYTHON}"), "-x", r"/(test|lib2to3)/"),
        ],
        env={"PYTHONHOME": str(tree / "usr"), "PATH": os.environ["PATH"]},
    )


if __name__ == "__main__":
    _write(Parts(**json.loads(sys.argv[1])))

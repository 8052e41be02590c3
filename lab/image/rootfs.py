"""The Debian part of the guest and the Python packages of the web service: slow to make, rarely changed."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from pathlib import Path

from lab.image.commands import run
from lab.process import LabError

SUITE = "bookworm"
PYTHON = "3.11"
"""The suite's Python: the packages' compiled parts must be for it, whatever Python runs the build."""

PACKAGES = ("busybox-static", "e2fsprogs", "python3", "qemu-guest-agent")
_UNREAD = ("doc", "info", "locale", "man", "lintian", "bug", "perl5", "i18n")
OPTIONS = (
    "--quiet",
    "--variant=essential",
    "--include=" + ",".join(PACKAGES),
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _UNREAD),
    '--aptopt=Acquire::Languages "none"',
)


def debootstrap(target: Path) -> None:
    """Write the root file system as a tar archive.

    Its packages come from this machine's own apt sources. Root needs nothing else; an ordinary user needs user
    namespaces and a range of subordinate ids (mmdebstrap's "unshare" mode).
    """
    run(["mmdebstrap", *OPTIONS, SUITE, str(target), *map(str, _apt_sources())])


def _apt_sources() -> list[Path]:
    apt = Path("/etc/apt")
    listed = sorted([*apt.glob("sources.list.d/*.list"), *apt.glob("sources.list.d/*.sources")])
    single = apt / "sources.list"
    if single.is_file() and single.stat().st_size:
        listed.insert(0, single)
    if not listed:
        raise LabError("no apt sources on this machine: the guest image is made from Debian's packages")
    return listed


def requirements(project: Path) -> list[str]:
    """What the web service needs, as `pyproject.toml` says (the extra `app`)."""
    project_table = tomllib.loads(project.read_text())["project"]
    needed: list[str] = project_table["optional-dependencies"]["app"]
    return sorted(needed)


def constraints() -> list[str]:
    """The versions installed here: the guest shall run what the tests ran."""
    found = {(dist.name, dist.version) for dist in importlib.metadata.distributions() if dist.name}
    return sorted(f"{name}=={version}" for name, version in found)


def install_packages(needed: list[str], target: Path) -> None:
    """Install Python packages for the guest into the new folder `target`, wheels only."""
    limits = target.with_suffix(".constraints")
    limits.write_text("\n".join(constraints()))
    try:
        run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--no-compile", "--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"),
                *("--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64"),
                *("--target", str(target), "--constraint", str(limits), *needed),
            ]
        )
    finally:
        limits.unlink()

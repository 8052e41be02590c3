"""The Debian part of the guest and the Python packages of the web service: slow to make, rarely changed."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

from lab.image.commands import run
from lab.process import LabError

SUITE = "bookworm"
PYTHON = "3.11"
"""The suite's Python: the packages' compiled parts must be for it, whatever Python runs the build."""

PACKAGES = ("busybox-static", "e2fsprogs", "python3", "qemu-guest-agent", "usr-is-merged")
_UNREAD = ("bug", "doc", "info", "lintian", "locale", "man")
OPTIONS = (
    "--quiet",
    "--variant=essential",
    # Without it Debian's converter to a merged /usr comes along, and with that all of Perl.
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
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


def constraints(needed: list[str]) -> list[str]:
    """The installed versions of `needed` and of all that they need: the guest shall run what the tests ran."""
    found: dict[str, str] = {}
    waiting = list(needed)
    while waiting:
        name = _normal_name(waiting.pop())
        if name in found:
            continue
        try:
            dist = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = dist.version
        waiting += [requirement for requirement in dist.requires or () if "extra ==" not in requirement]
    return sorted(f"{name}=={version}" for name, version in found.items())


def _normal_name(requirement: str) -> str:
    """The project's name at the beginning of a requirement, in the form that compares."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    if name is None:
        raise LabError(f"{requirement!r}: not a requirement")
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def install_packages(needed: list[str], target: Path) -> None:
    """Install Python packages for the guest into the new folder `target`, wheels only."""
    limits = target.with_suffix(".constraints")
    limits.write_text("\n".join(constraints(needed)))
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

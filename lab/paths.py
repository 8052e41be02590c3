"""Where the lab keeps its files and which loopback addresses its parts use.

Everything that the lab makes is below two folders: the cache (built binaries, the guest image; survives
`make lab-down`) and the state (processes, sockets, certificates, databases of one running lab).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lab.process import LabError

DEFAULT_BASE = 16
LAST_BASE = 250
LAB_USER = "luban-lab"
"""The ordinary user that runs what refuses to run as root (libvirt session daemons)."""


def cache_dir() -> Path:
    """Folder for what is expensive to make: `LUBAN_CACHE_DIR`, or the system's or the user's cache."""
    if given := os.environ.get("LUBAN_CACHE_DIR"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/luban-cloud")
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "luban-cloud"


def _default_state_root() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/luban-lab")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "luban-lab"


def _base_from_environment() -> int:
    text = os.environ.get("LUBAN_LAB_BASE", str(DEFAULT_BASE))
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= LAST_BASE:
        raise LabError(f"LUBAN_LAB_BASE={text!r}: must be a number from 1 to {LAST_BASE} ({DEFAULT_BASE} unless set)")
    return int(text)


@dataclass(frozen=True)
class Layout:
    """Folders and addresses of one lab.

    `base` is the third octet of its block of loopback addresses: infrastructure on 127.0.base.x, the VMs of the
    first host on 127.0.(base+1).x, of the second on 127.0.(base+2).x. Labs with different bases can run side by side.
    """

    base: int
    state: Path

    @classmethod
    def from_environment(cls, base: int | None = None) -> Layout:
        """Read `LUBAN_LAB_BASE` (third octet, 1..250) and `LUBAN_LAB_DIR`, with defaults. Raises LabError."""
        chosen = base if base is not None else _base_from_environment()
        root = Path(os.environ.get("LUBAN_LAB_DIR", _default_state_root())).absolute()
        if not re.fullmatch("[A-Za-z0-9/._~@:,=+-]+", str(root)):
            raise LabError(f"LUBAN_LAB_DIR={str(root)!r}: libvirt URIs hold it: plain characters only")
        return cls(base=chosen, state=root / str(chosen))

    def others(self) -> list[Layout]:
        """Labs of other bases that were ever brought up beside this one, and not destroyed."""
        folders = [path for path in self.state.parent.glob("*/") if re.fullmatch("[0-9]{1,3}", path.name)]
        bases = sorted(int(folder.name) for folder in folders)
        return [Layout(base, self.state.with_name(str(base))) for base in bases if base != self.base]

    def address(self, last: int) -> str:
        """An infrastructure address of this lab, 127.0.base.last."""
        return f"127.0.{self.base}.{last}"

    @property
    def api_server(self) -> str:
        """Address of kube-apiserver (port 6443) and etcd (2379, 2380)."""
        return self.address(1)

    @property
    def httpd(self) -> str:
        """Address of Apache httpd (port 8080) and of the balancer agent (9180)."""
        return self.address(2)

    @property
    def prometheus(self) -> str:
        """Address of Prometheus (port 9090)."""
        return self.address(3)

    @property
    def operator(self) -> str:
        """Address of the operator's /metrics and /healthz (port 8081)."""
        return self.address(4)

    @property
    def admin_kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator (for people and tests; never for the operator)."""
        return self.state / "admin.kubeconfig"

    def vm_range(self, host_index: int) -> str:
        """CIDR of loopback addresses that forward to the VMs of a host (0 = first)."""
        return f"127.0.{self.base + 1 + host_index}.0/24"

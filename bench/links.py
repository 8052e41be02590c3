"""What it costs to read all links of a host from netlink: our decoder of a dozen attributes, and pyroute2's of all.

The node agent does it each second. Run as root: the links are veth pairs in a network namespace of the benchmark's own.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from statistics import median

from pyroute2 import IPRoute

from bench.result import Result, spread
from luban.adapters.kernel_bonds.netlink import Dump

PAIRS = 100
RUNS = 15
CLONE_NEWNET = 0x40000000
ATTRIBUTES = ("IFLA_IFNAME", "IFLA_MASTER", "IFLA_LINK", "IFLA_CARRIER", "IFLA_CARRIER_DOWN_COUNT")


def enter_namespace() -> None:
    """Put this process into a new network namespace, which ends with it, and make the links."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise SystemExit(f"no network namespace: {os.strerror(ctypes.get_errno())}: run this benchmark as root")
    lines = "\n".join(f"link add v{number}a type veth peer name v{number}b" for number in range(PAIRS))
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def milliseconds(read: Callable[[], int]) -> float:
    """Processor time of one reading."""
    begun = time.process_time()
    found = read()
    spent = (time.process_time() - begun) * 1000
    if found <= 2 * PAIRS:
        raise RuntimeError(f"{found} links instead of more than {2 * PAIRS}")
    return spent


def with_pyroute2(route: IPRoute) -> int:
    """The same facts through pyroute2."""
    count = 0
    for link in route.get_links():
        count += 1
        for name in ATTRIBUTES:
            link.get_attr(name)
        info = link.get_attr("IFLA_LINKINFO")
        if info:
            info.get_attr("IFLA_INFO_KIND"), info.get_attr("IFLA_INFO_SLAVE_KIND")
    return count


def main() -> None:
    """Both in turn."""
    enter_namespace()
    dump = Dump()
    ours, theirs = [], []
    with IPRoute() as route:
        for _ in range(RUNS):
            ours.append(milliseconds(lambda: len(dump.links())))
            theirs.append(milliseconds(lambda: with_pyroute2(route)))
    dump.close()
    Result(
        bench="links",
        value=median(ours),
        unit=f"ms of processor time to read {2 * PAIRS} links",
        baseline="pyroute2, the same facts",
        baseline_value=median(theirs),
        ratio=median(theirs) / median(ours),
        detail={"ours": spread(ours), "pyroute2": spread(theirs)},
    ).print()


if __name__ == "__main__":
    main()

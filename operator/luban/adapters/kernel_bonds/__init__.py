"""ports.BondSource on the running kernel: netlink first, /proc and /sys for what netlink does not tell."""

from luban.adapters.kernel_bonds.source import HANGS, KernelBonds

__all__ = ["HANGS", "KernelBonds"]

"""ports.BondSource on the running kernel: netlink first, /proc and /sys for what netlink does not tell."""

from luban.adapters.kernel_bonds.source import KernelBonds

__all__ = ["KernelBonds"]

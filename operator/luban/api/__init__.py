"""The custom resources of luban.cloud as frozen models: the one source of crds/*.yaml and of parsed specs."""

from luban.api.cluster import LubanCluster, LubanClusterSpec, LubanClusterStatus
from luban.api.vm import LubanVM, LubanVMSpec, LubanVMStatus

__all__ = [
    "LubanCluster",
    "LubanClusterSpec",
    "LubanClusterStatus",
    "LubanVM",
    "LubanVMSpec",
    "LubanVMStatus",
]

"""The custom resources of luban.cloud as frozen models: the one source of crds/*.yaml and of parsed specs."""

from luban.api.cluster import LubanCluster, LubanClusterSpec
from luban.api.cluster_status import LubanClusterStatus
from luban.api.host import LubanHost, LubanHostSpec, LubanHostStatus
from luban.api.vm import LubanVM, LubanVMSpec, LubanVMStatus

__all__ = [
    "LubanCluster",
    "LubanClusterSpec",
    "LubanClusterStatus",
    "LubanHost",
    "LubanHostSpec",
    "LubanHostStatus",
    "LubanVM",
    "LubanVMSpec",
    "LubanVMStatus",
]

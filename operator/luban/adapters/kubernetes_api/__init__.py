"""ports.Cluster, LubanHosts and LeaseStore on a real API server: `connect` and its like give them."""

from luban.adapters.kubernetes_api.cluster import KubernetesCluster, connect
from luban.adapters.kubernetes_api.hosts import KubernetesHosts, connect_hosts
from luban.adapters.kubernetes_api.lease import KubernetesLease, connect_lease

__all__ = ["KubernetesCluster", "KubernetesHosts", "KubernetesLease", "connect", "connect_hosts", "connect_lease"]

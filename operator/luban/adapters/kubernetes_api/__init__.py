"""ports.Cluster and ports.HostReports on a real API server: `connect` and `connect_hosts` give them."""

from luban.adapters.kubernetes_api.cluster import KubernetesCluster, connect
from luban.adapters.kubernetes_api.hosts import KubernetesHosts, connect_hosts

__all__ = ["KubernetesCluster", "KubernetesHosts", "connect", "connect_hosts"]

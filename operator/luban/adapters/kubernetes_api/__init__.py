"""ports.Cluster on a real API server: `connect` gives a `KubernetesCluster`."""

from luban.adapters.kubernetes_api.cluster import KubernetesCluster, connect

__all__ = ["KubernetesCluster", "connect"]

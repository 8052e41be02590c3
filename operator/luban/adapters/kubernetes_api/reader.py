"""Reading a cluster's objects once, for the command line."""

from __future__ import annotations

from typing import Any

import yaml
from kubernetes.aio import config as kubernetes_config

from luban.adapters.kubernetes_api.calls import CLUSTERS, VMS, Call
from luban.adapters.kubernetes_api.errors import LIBRARY_ERRORS
from luban.adapters.kubernetes_api.transport import kubeconfig_path, open_transport, pod_namespace
from luban.errors import PermanentError


async def read_cluster(
    kubeconfig: str | None, context: str | None, namespace: str | None, name: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A LubanCluster and its LubanVMs. `namespace` None: that of the kubeconfig's context, or of the Pod.

    Raises NotFound, Forbidden and the other LubanErrors of the API server; PermanentError InvalidKubeconfig.
    """
    space = namespace or pod_namespace(kubeconfig, context) or _namespace(kubeconfig, context)
    transport = await open_transport(kubeconfig, context)
    try:
        cluster = await transport.send(Call("get", CLUSTERS, space, name))
        vms = await transport.send(Call("list", VMS, space, query={"fieldSelector": f"spec.clusterName={name}"}))
    finally:
        await transport.close()
    return cluster, list(vms["items"])


def _namespace(kubeconfig: str | None, context: str | None) -> str:
    """The context's namespace, as kubectl takes it."""
    path = kubeconfig_path(kubeconfig)
    try:
        contexts, active = kubernetes_config.list_kube_config_contexts(config_file=path)  # type: ignore[no-untyped-call]
    except (*LIBRARY_ERRORS, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise PermanentError("InvalidKubeconfig", f"{path} cannot be used as a kubeconfig: {error}") from error
    chosen = next((it for it in contexts if it["name"] == context), active) if context else active
    return str(chosen["context"].get("namespace", "default"))

"""Every group, label, annotation and finalizer that Luban writes. No other module spells one out."""

GROUP = "luban.cloud"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

CLUSTERS = "lubanclusters"
VMS = "lubanvms"
HOSTS = "lubanhosts"

LABEL_CLUSTER = "luban.cloud/cluster"
"""On LubanVMs, ConfigMaps and Leases: name of the LubanCluster in the same namespace."""
LABEL_HOST = "luban.cloud/host"
"""On LubanVMs: name of the host entry that the VM is placed on."""

FINALIZER_CLUSTER = "luban.cloud/drain-vms"
"""Keeps a LubanCluster until its VMs are drained and removed (or orphaned)."""
FINALIZER_VM = "luban.cloud/drain-domain"
"""Keeps a LubanVM until its domain and overlay are gone."""

ANNOTATION_AGENT_ENDPOINT = "luban.cloud/agent-endpoint"
"""On the Lease of a balancer: base URL of its agent's report, for example http://10.0.0.7:9180."""
AGENT_REALM = 'Bearer realm="luban-balancer-agent"'
"""WWW-Authenticate of an agent that refuses to report: tells the operator that it is one."""

FEED_TYPE = "application/x-ndjson"
"""Of an answer that goes on: one document a line, whenever it has changed; an empty line says that it has not."""

ANNOTATION_OBJECTS = "luban.cloud/objects"
"""On the StatefulSet of a cluster's balancers: version of all objects that the operator made for them."""

ANNOTATION_ADOPTED = "luban.cloud/adopted"
"""On a LubanVM: "true" if another LubanCluster of the same name made it, and left it running. Its domain bears that one's
mark."""

METADATA_NAMESPACE = "https://luban.cloud/libvirt/1"
"""XML namespace of the metadata element that marks a libvirt domain as ours."""

OPERATOR_USER = "system:serviceaccount:luban-system:luban-operator"
"""The operator, as manifests/base runs it."""
FIELD_MANAGER = "luban-operator"
NODE_AGENT_FIELD_MANAGER = "luban-node-agent"


def agent_audience(namespace: str, cluster: str) -> str:
    """Of the token that the operator shows to a cluster's balancer agents: it is good for nothing else. Whoever may say
    where they are gets to see it, and must not open other clusters' reports with it."""
    return f"luban.cloud/balancer-agent/{namespace}/{cluster}"


def balancer_name(cluster: str, index: int) -> str:
    """Name of a balancer, of its ConfigMap and of its Lease: `<cluster>-balancer-<index>`."""
    return f"{cluster}-balancer-{index}"


def ordinal_of(balancer: str) -> int:
    """The index in a balancer's name; 0 for a name that has none."""
    _, found, index = balancer.rpartition("-balancer-")
    return int(index) if found and index.isdecimal() else 0


VM_VOLUME = "(?i)^luban-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
"""Matches the name of a storage volume that was made for one VM: its overlay, its seed. In any case, as a pool's file
system may not tell them apart."""

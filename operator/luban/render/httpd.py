"""Apache httpd configuration of a balancer. Two forms from one renderer:

* plain: members by address. A plain `apache2 -f` can serve from it; the ConfigMap shows it to people.
* slotted: members behind declared slots whose names the balancer agent points at VMs, so that a change of membership
  needs no reload (a reload closes clients' connections).

The figures below were measured; see docs/decisions. What may reach the text is decided in luban.render.balancer.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from luban.core.model import Member, MemberState
from luban.render.balancer import (
    HIGHEST_PORT,
    BalancerDocument,
    BalancerSettings,
    check_address,
    check_member,
    check_number,
    check_text,
    document_json,
    parse_balancer_json,
    route_of,
    settings_of,
)
from luban.render.httpd_front import BALANCER, front_lines, sticky_session

__all__ = [
    "AgentSettings",
    "BalancerDocument",
    "BalancerSettings",
    "SlotLine",
    "children_for",
    "config_map_data",
    "parse_balancer_json",
    "plain_config",
    "settings_of",
    "slot_host",
    "slot_name",
    "slotted_config",
]

SLOT_DOMAIN = "slot.invalid"
"""Slots are called s001.slot.invalid and so on: a domain that no DNS server answers for (RFC 2606)."""
PARKED_ADDRESS = "255.255.255.255"
"""Where free slots point: no TCP connection can be opened to it, and no packet leaves for it."""
MANAGER_PATH = "/balancer-manager"
STATUS_PATH = "/server-status"
TOKEN_HEADER = "X-Luban-Token"  # noqa: S105 (the name of a header, not a secret)
REQUEST_LOG = "requests.log"
ERROR_LOG = "error.log"
PID_FILE = "httpd.pid"

LONGEST_HEALTH_PATH = 63
"""mod_proxy_hcheck can hold no longer one; the plain form then does without health checks."""
CLIENT_SECONDS = 60
"""A client that neither sends nor takes anything for so long, in the middle of a request, is gone."""
LEAST_ANSWER_BYTES = 8192
"""httpd's own limit for a header of an answer."""
STATUS_FLAGS: dict[MemberState, str] = {"Enabled": "", "Draining": "N", "Disabled": "D"}
"""httpd's letters. N: no requests but those of existing sticky sessions. D: none."""

_FOLDER = re.compile(r"/[A-Za-z0-9._/@+=-]{0,200}")
_SECRET = re.compile(r"[0-9a-f]{16,64}")
_SLOT = re.compile(r"s[0-9]{3,5}")
_ROUTE = re.compile(r"[A-Za-z0-9_-]{1,60}")
_FLAGS = re.compile(r"D?N?|ND")

_MODULE_FOLDERS = ("/usr/lib/apache2/modules", "/usr/local/apache2/modules", "/usr/lib64/httpd/modules")
"""Debian, the official image, Fedora."""
_MODULES = (
    "mpm_event",
    "unixd",
    "authz_core",
    "alias",
    "log_config",
    "env",
    "headers",
    "setenvif",
    "unique_id",
    "reqtimeout",
    "slotmem_shm",
    "proxy",
    "proxy_http",
    "proxy_balancer",
    # All of them: every balancer begins with byrequests, and without it httpd ends at its start although -t is content.
    "lbmethod_byrequests",
    "lbmethod_bytraffic",
    "lbmethod_bybusyness",
)
_PLAIN_MODULES = ("watchdog", "proxy_hcheck")
_SLOTTED_MODULES = ("logio", "status")

_SERVER = """\
ServerTokens Prod
ServerSignature Off
TraceEnable Off
# Only used when root starts httpd: its children become nobody.
User #65534
Group #65534
<Directory "/">
    AllowOverride None
    Require all denied
</Directory>"""

THREADS_PER_CHILD = 128
MOST_CHILDREN = 128
"""Of all configurations together, the earlier ones still finishing requests; httpd cannot change it while it runs. Four
times what the most requests at once take."""

_CONNECTIONS = """\
MaxConnectionsPerChild 0
ListenBacklog 4096
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 30
RequestReadTimeout handshake=0 header=20-40,MinRate=500 body=0"""


@dataclass(frozen=True)
class SlotLine:
    """A slot as the slotted form declares it. Raises ValueError for a value not allowed."""

    name: str
    """s001, s002 and so on."""
    port: int
    route: str
    flags: str = "D"
    """httpd's status letters, see STATUS_FLAGS; both may be set."""
    load_factor: int = 1

    def __post_init__(self) -> None:
        check_text("slot", _SLOT, self.name)
        check_text("route", _ROUTE, self.route)
        check_text("flags", _FLAGS, self.flags)
        check_number("port", self.port, HIGHEST_PORT)
        check_number("load factor", self.load_factor, 100)


@dataclass(frozen=True)
class AgentSettings:
    """What only the agent beside httpd knows. Raises ValueError for a value not allowed."""

    folder: str
    """Absolute path of the folder for pid file, logs and shared memory."""
    manager_address: str
    """IP address of the private listener for balancer-manager and server-status."""
    manager_port: int
    secret: str
    """Hex digits: nonce of the balancer-manager, and token that each request to the private listener carries."""
    listen_address: str = ""
    """Overrides the settings' address unless empty."""
    stop_seconds: int = 20
    """A graceful stop waits so long for requests in flight."""

    def __post_init__(self) -> None:
        check_text("folder", _FOLDER, self.folder)
        check_text("secret", _SECRET, self.secret)
        check_address("manager address", self.manager_address)
        check_number("manager port", self.manager_port, HIGHEST_PORT)
        check_number("stop time", self.stop_seconds, 3600)
        if self.listen_address:
            check_address("listen address", self.listen_address)


def slot_name(index: int) -> str:
    """Name of a slot, counted from 1: s001."""
    return f"s{index:03d}"


def slot_host(name: str) -> str:
    """Host name of a slot."""
    return f"{name}.{SLOT_DOMAIN}"


def children_for(requests_at_once: int) -> int:
    """Processes that httpd begins to serve so many requests at once."""
    return math.ceil(requests_at_once / THREADS_PER_CHILD)


def config_map_data(settings: BalancerSettings, members: Sequence[Member]) -> dict[str, str]:
    """Data of a balancer's ConfigMap: the plain form for people, `balancer.json` for the agent."""
    return {"httpd.conf": plain_config(settings, members), "balancer.json": document_json(settings, members)}


def plain_config(settings: BalancerSettings, members: Sequence[Member]) -> str:
    """A complete configuration with the members by address.

    `apache2 -C "Define LUBAN_RUN <folder>"` moves pid file and shared memory, `-C "Define LUBAN_MODULES <folder>"`
    says where the modules are. Errors go to standard error. Raises ValueError for a member that is not allowed.
    """
    for member in members:
        check_member(member)
    health = _health_check(settings)
    return _document(
        f"# Balancer of LubanCluster {settings.cluster}. Generated: changes here are overwritten.",
        _define("LUBAN_RUN", "/run/apache2"),
        *_common(settings, "${LUBAN_RUN}", "/dev/stderr", settings.listen_address, _PLAIN_MODULES),
        _balancer(settings, (_plain_member(settings, member) + health for member in members)),
        _front(settings, settings.listen_address, front_lines(settings)),
    )


def slotted_config(settings: BalancerSettings, slots: Iterable[SlotLine], runtime: AgentSettings) -> str:
    """The configuration of an agent's httpd, with the slots in the state in which httpd must start."""
    address = runtime.listen_address or settings.listen_address
    return _document(
        f"# Balancer of LubanCluster {settings.cluster}. Generated by its agent: changes here are overwritten.",
        *_common(settings, runtime.folder, f"{runtime.folder}/{ERROR_LOG}", address, _SLOTTED_MODULES),
        f"Listen {_endpoint(runtime.manager_address, runtime.manager_port)}",
        f"GracefulShutdownTimeout {runtime.stop_seconds}",
        _balancer(settings, (_slot(settings, slot) for slot in slots), f" nonce={runtime.secret}"),
        _front(settings, address, front_lines(settings, _session_key(runtime), f"{runtime.folder}/{REQUEST_LOG}")),
        _manager(runtime),
    )


def _session_key(runtime: AgentSettings) -> str:
    """What sessions are signed with: hex digits that tell nothing of the secret."""
    return hashlib.sha256(f"sessions {runtime.secret}".encode()).hexdigest()[:32]


def _document(*sections: str) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"


def _common(
    settings: BalancerSettings, folder: str, error_log: str, address: str, modules: Sequence[str]
) -> tuple[str, ...]:
    """Everything but the balancer itself. The modules come first: the rest is written in their directives."""
    return (
        _load((*_MODULES, *modules)),
        f'ServerRoot "{folder}"\nDefaultRuntimeDir "{folder}"\nPidFile "{folder}/{PID_FILE}"\n'
        f'ErrorLog "{error_log}"\nLogLevel warn proxy:error\nServerName balancer.invalid\n{_SERVER}',
        _capacity(settings.requests_at_once),
        _CONNECTIONS,
        _limits(settings),
        f"Listen {_endpoint(address, settings.listen_port)}",
    )


def _capacity(requests: int) -> str:
    """Threads well above the peak: a httpd without an idle thread closes idle keep-alive connections of clients.

    All children from the start and none ever retired, because a retired child closes its clients' connections too; room
    for children of earlier generations that still finish requests.
    """
    children = children_for(requests)
    threads = children * THREADS_PER_CHILD
    return (
        f"StartServers {children}\nThreadsPerChild {THREADS_PER_CHILD}\nThreadLimit {THREADS_PER_CHILD}\n"
        f"MaxRequestWorkers {threads}\nMinSpareThreads {THREADS_PER_CHILD}\nMaxSpareThreads {threads}\n"
        f"ServerLimit {MOST_CHILDREN}"
    )


def _limits(settings: BalancerSettings) -> str:
    """Sizes and times. Nobody who sends or reads is given up before a VM would be."""
    return (
        f"Timeout {max(CLIENT_SECONDS, settings.timeout_seconds)}\n"
        f"LimitRequestLine {settings.request_line_bytes}\n"
        f"LimitRequestFieldSize {settings.header_field_bytes}\n"
        f"LimitRequestFields {settings.header_fields}"
    )


def _define(name: str, value: str) -> str:
    """A default that `-C "Define ..."` overrides."""
    return f"<IfDefine !{name}>\n    Define {name} {value}\n</IfDefine>"


def _load(modules: Iterable[str]) -> str:
    """LoadModule lines; distributions keep modules in different folders, and build some of them in."""
    folders = "\n".join(
        f"<IfFile {folder}/mod_proxy.so>\n{_define('LUBAN_MODULES', folder)}\n</IfFile>" for folder in _MODULE_FOLDERS
    )
    lines = "\n".join(
        f"<IfModule !{name}_module>\n    LoadModule {name}_module ${{LUBAN_MODULES}}/mod_{name}.so\n</IfModule>"
        for name in modules
    )
    return f"{folders}\n{lines}"


def _balancer(settings: BalancerSettings, members: Iterable[str], extra: str = "") -> str:
    lines = "".join(f"    {member}\n" for member in members)
    # maxattempts: without it a request that found one dead member is not tried on another.
    return (
        "# Off: what a graceful restart finds is this file, which holds the present state of each member.\n"
        "BalancerPersist Off\n"
        f"<Proxy balancer://{BALANCER}>\n{lines}"
        f"    ProxySet lbmethod={settings.method} maxattempts=3{sticky_session(settings.sticky_cookie)}{extra}\n"
        "</Proxy>"
    )


def _plain_member(settings: BalancerSettings, member: Member) -> str:
    host = f"{_bracketed(member.address)}:{member.port}"
    return _member(settings, host, route_of(member.name), STATUS_FLAGS[member.state], member.load_factor)


def _slot(settings: BalancerSettings, slot: SlotLine) -> str:
    # addressttl: httpd looks a slot's name up again after this many seconds.
    host = f"{slot_host(slot.name)}:{slot.port}"
    return _member(settings, host, slot.route, slot.flags, slot.load_factor) + " addressttl=1"


def _member(settings: BalancerSettings, host: str, route: str, flags: str, load_factor: int) -> str:
    """A BalancerMember line.

    disablereuse: established connections then are requests in flight, and backends that close idle connections do no
    harm. connectiontimeout: as long as a health check may take, for a busy guest drops a connection's first packet now
    and then, and it is sent again after 1 s and 3 s. retry=0: a member that failed once is passed over by this request
    and asked again by the next; what takes it out is the health check. With any longer time, two members that fail
    once within it are "all workers in error state", a 503 for everybody: forcerecovery does not help, since httpd
    counts the free slots, which are disabled and not in error, among the members that are fine.
    upgrade: WebSockets are passed on; no other protocol, since that would get past the rules for paths.
    Not set: ping, with which every request with a body waits until the member says 100 Continue, which not every
    service does. Nor failonstatus and failontimeout, with which one bad URL of the application takes all members out.
    """
    status = f" status=+{flags}" if flags else ""
    return (
        f"BalancerMember http://{host} route={route} loadfactor={load_factor}{status} "
        f"timeout={settings.timeout_seconds} connectiontimeout={settings.health_timeout_seconds} retry=0 "
        f"responsefieldsize={max(LEAST_ANSWER_BYTES, settings.header_field_bytes)} upgrade=websocket disablereuse=on"
    )


def _health_check(settings: BalancerSettings) -> str:
    """mod_proxy_hcheck's parameters. Only for members by address: it never looks a name up again."""
    if len(settings.health_path) > LONGEST_HEALTH_PATH:
        return ""
    interval = settings.health_interval_seconds
    return f" hcmethod=GET hcuri={settings.health_path} hcinterval={interval} hcpasses=1 hcfails=2"


def _front(settings: BalancerSettings, address: str, lines: list[str]) -> str:
    """The virtual host that clients talk to."""
    return _virtual_host(_endpoint(address or "*", settings.listen_port), lines)


def _manager(runtime: AgentSettings) -> str:
    """The private virtual host of balancer-manager and server-status."""
    # The nonce alone protects nothing: the manager prints it to everyone who may look at it.
    require = f"Require expr \"req('{TOKEN_HEADER}') == '{runtime.secret}'\""
    lines = ["ServerName manager.invalid"]
    for path, handler in ((MANAGER_PATH, "balancer-manager"), (STATUS_PATH, "server-status")):
        lines += [f"<Location {path}>", f"    SetHandler {handler}", f"    {require}", "</Location>"]
    return _virtual_host(_endpoint(runtime.manager_address, runtime.manager_port), lines)


def _virtual_host(endpoint: str, lines: Iterable[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"<VirtualHost {endpoint}>\n{body}</VirtualHost>"


def _endpoint(address: str, port: int) -> str:
    """`address:port`, or the port alone for all addresses."""
    return f"{_bracketed(address)}:{port}" if address else str(port)


def _bracketed(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if address != "*" and ipaddress.ip_address(address).version == 6 else address

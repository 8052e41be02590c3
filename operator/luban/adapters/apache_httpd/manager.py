"""httpd's balancer-manager and server-status, on its private listener."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import aiohttp

from luban.errors import TemporaryError
from luban.render.httpd import MANAGER_PATH, SLOT_DOMAIN, STATUS_PATH, TOKEN_HEADER, slot_host
from luban.render.httpd_front import BALANCER

DEADLINE_SECONDS = 5.0
"""A graceful restart stops accepting for more than a second."""
GENERATION = "ParentServerConfigGeneration"
"""Line of server-status that counts graceful restarts."""

_WORKER = re.compile(r"<httpd:worker>(.*?)</httpd:worker>", re.DOTALL)
_FIELD = re.compile(r"<httpd:(hostname|port|status|route|loadfactor|elected)>([^<]*)</httpd:\1>")
_LETTERS = {"Dis": "D", "Drn": "N", "Stop": "S", "Err": "E", "HcFl": "C", "Ign": "I", "Stby": "H", "Spar": "R"}


@dataclass(frozen=True)
class SlotState:
    """What httpd does with a slot, as far as it can be set."""

    flags: frozenset[str]
    """Of D (disabled), N (draining), C (health check failed): none set means that it takes requests."""
    route: str
    load_factor: int


@dataclass(frozen=True)
class LiveSlot:
    """A slot as httpd describes it."""

    state: SlotState
    port: int
    in_error: bool
    """httpd met an error on it and passes it over for two seconds."""
    served: int
    """Requests since httpd started or was last reloaded."""


class HttpdManager:
    """Reads and changes a running httpd. Every call raises TemporaryError if httpd does not do as asked."""

    def __init__(self, address: str, port: int, secret: str) -> None:
        host = f"[{address}]" if ":" in address else address
        self._url = f"http://{host}:{port}"
        self._secret = secret
        # The manager ignores what does not come from its own pages.
        headers = {TOKEN_HEADER: secret, "Referer": f"{self._url}{MANAGER_PATH}"}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
            connector=aiohttp.TCPConnector(force_close=True),
        )

    async def __aenter__(self) -> HttpdManager:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def slots(self) -> dict[str, LiveSlot]:
        """All slots by name."""
        text = await self._call("GET", f"{MANAGER_PATH}?xml=1")
        if not text.startswith("<?xml"):
            raise TemporaryError("ManagerRefused", "the balancer-manager did not answer in XML")
        return dict(_slot(match[1]) for match in _WORKER.finditer(text))

    async def set(self, slot: str, port: int, state: SlotState) -> None:
        """Ask for a slot's state. httpd answers the same whether it obeyed or not: read back afterwards."""
        flags = {f"w_status_{letter}": str(int(letter in state.flags)) for letter in "NDC"}
        form = {
            "b": BALANCER,
            "w": f"http://{slot_host(slot)}:{port}",
            "nonce": self._secret,
            "w_wr": state.route,
            "w_lf": str(state.load_factor),
            **flags,
        }
        await self._call("POST", MANAGER_PATH, form)

    async def status(self) -> dict[str, str]:
        """The lines of server-status by name."""
        text = await self._call("GET", f"{STATUS_PATH}?auto")
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name: value for name, colon, value in pairs if colon}

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _call(self, method: str, path: str, form: Mapping[str, str] | None = None) -> str:
        try:
            async with self._session.request(method, self._url + path, data=form) as answer:
                if answer.status != 200:
                    raise TemporaryError("ManagerRefused", f"httpd answered {answer.status} to {method} {path}")
                return await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TemporaryError("HttpdUnreachable", f"httpd does not answer {path}: {error!r}") from error


def _slot(text: str) -> tuple[str, LiveSlot]:
    """Name and state of one slot, from its XML element."""
    fields = dict(_FIELD.findall(text))
    letters = frozenset(_LETTERS[word] for word in fields["status"].split() if word in _LETTERS)
    state = SlotState(letters & frozenset("DNC"), fields["route"], round(float(fields["loadfactor"])))
    name = fields["hostname"].removesuffix(f".{SLOT_DOMAIN}")
    return name, LiveSlot(state, int(fields["port"]), "E" in letters, int(fields["elected"]))

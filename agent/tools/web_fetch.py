"""`web_fetch`: a page of the web as text, with limits on address, size and time."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    import httpx

FETCH_TIMEOUT = 30.0
"""Seconds for all of it, redirects included."""

FETCH_LIMIT = 2 * 1024 * 1024
"""Bytes that are read of a page; the rest is not looked at."""

MAX_REDIRECTS = 5

TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""Gateways to IPv4 (RFC 6052, RFC 8215): what is behind them cannot be told for all of them."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def web_fetch_tool(allowed_networks: Sequence[str] = ()) -> Tool:
    """`web_fetch`. Addresses that are not public are refused, but for those in `allowed_networks` (CIDR)."""
    networks = tuple(ipaddress.ip_network(network) for network in allowed_networks)

    async def call(arguments: dict[str, Any]) -> str:
        return await _fetch(arguments["url"], networks)

    return Tool(
        name="web_fetch",
        description="Fetch a page of the web by its address and read it as text. Links are shown in brackets.",
        parameters=parameters("url", url={"type": "string", "description": "An http or https address."}),
        call=call,
        timeout=FETCH_TIMEOUT,
        read_only=True,
    )


async def _fetch(address: str, networks: Sequence[Network]) -> str:
    import httpx

    # No proxy from the environment: it would resolve names itself, and reach what must not be reached.
    async with httpx.AsyncClient(trust_env=False, timeout=FETCH_TIMEOUT) as client:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = await _get(client, httpx.URL(address), networks)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ToolError(f"{address} could not be fetched: {type(error).__name__}: {error}") from error
            try:
                if not response.has_redirect_location:
                    return await _read(response, address)
                address = str(httpx.URL(address).join(response.headers["location"]))
            finally:
                await response.aclose()
    raise ToolError(f"more than {MAX_REDIRECTS} redirects; the last one to {address}")


async def _get(client: httpx.AsyncClient, url: httpx.URL, networks: Sequence[Network]) -> httpx.Response:
    """Ask the very address that was checked: the name could mean another one when it is resolved again."""
    if url.scheme not in ("http", "https") or not url.host:
        raise ToolError(f"{url} is not an http or https address")
    port = url.port or (443 if url.scheme == "https" else 80)
    address = await _resolve(url.host, port, networks)
    request = client.build_request(
        "GET",
        url.copy_with(host=str(address)),
        headers={"Host": url.netloc.decode(), "User-Agent": "agentsession"},
        extensions={"sni_hostname": url.host},
    )
    return await client.send(request, stream=True)


async def _resolve(host: str, port: int, networks: Sequence[Network]) -> Address:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ToolError(f"{host} cannot be resolved: {error.strerror}") from error
    addresses = [ipaddress.ip_address(info[4][0]) for info in found]
    refused = [address for address in addresses if not may_reach(address, networks)]
    if refused:  # all of them must do: a name for a public and a private address is an attack
        raise ToolError(f"{host} is at {refused[0]}, which is not a public address")
    return addresses[0]


def may_reach(address: Address, networks: Sequence[Network]) -> bool:
    """Public addresses, and those of the networks. An IPv4 address in an IPv6 one counts as what it is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return may_reach(inner, networks)
    allowed = any(address.version == network.version and address in network for network in networks)
    translated = any(address.version == 6 and address in network for network in TRANSLATED)
    return allowed or (address.is_global and not address.is_multicast and not translated)


async def _read(response: httpx.Response, address: str) -> str:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > FETCH_LIMIT:
            break
    note = f"\n[only the first {FETCH_LIMIT} bytes were read]" if len(body) > FETCH_LIMIT else ""
    kind = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind.endswith(("json", "xml", "javascript", "yaml"))):
        raise ToolError(f"{address} is {kind}, not text")
    text = body[:FETCH_LIMIT].decode(response.charset_encoding or "utf-8", errors="replace")
    text = (html_to_text(text) if "html" in kind else text) + note
    if response.is_error:
        raise ToolError(f"{address} answered {response.status_code} {response.reason_phrase}\n{text}")
    return f"{address}\n\n{text}"


def html_to_text(html: str) -> str:
    """What a reader would see: no markup, no scripts; a line for each block; links with their addresses."""
    reader = _TextOfHtml()
    reader.feed(html)
    reader.close()
    lines = (re.sub(r"[ \t\r\f\v]+", " ", line).strip() for line in "".join(reader.text).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


BLOCK_TAGS = """
address article blockquote br dd div dl dt footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table
td th title tr ul
"""


class _TextOfHtml(HTMLParser):
    HIDDEN = frozenset({"script", "style", "noscript", "template", "svg"})
    BLOCKS = frozenset(re.findall(r"\w+", BLOCK_TAGS))

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._hidden = 0
        self._links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.text.append("\n")
        if tag == "a":
            self._links.append(dict(attrs).get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self.HIDDEN and self._hidden > 0
        if tag in self.BLOCKS:
            self.text.append("\n")
        if tag == "a" and self._links and (href := self._links.pop()) and not href.startswith(("#", "javascript:")):
            self.text.append(f" [{href}]")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)

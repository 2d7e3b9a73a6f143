"""`web_fetch`: a page of the web as text, with limits on address, size and time."""

from __future__ import annotations

import asyncio
import codecs
import html
import ipaddress
import re
import socket
from collections.abc import Sequence
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
    import httpx  # late: it imports slowly, and a start does not need it

    try:
        # No proxy from the environment: it would resolve names itself, and reach what must not be reached.
        async with httpx.AsyncClient(trust_env=False, timeout=FETCH_TIMEOUT) as client:
            return await _follow(client, httpx.URL(address), networks)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ToolError(f"{address} could not be fetched: {type(error).__name__}: {error}") from error


async def _follow(client: httpx.AsyncClient, url: httpx.URL, networks: Sequence[Network]) -> str:
    for _ in range(MAX_REDIRECTS + 1):
        response = await _get(client, url, networks)
        try:
            if not response.has_redirect_location:
                return await _read(response, str(url))
            url = url.join(response.headers["location"])
        finally:
            await response.aclose()
    raise ToolError(f"more than {MAX_REDIRECTS} redirects; the last one to {url}")


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
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a name, such as one that is too long
        raise ToolError(f"{host} cannot be resolved: {error}") from error
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
    if "," in response.headers.get("content-encoding", ""):  # twice, one packet of it can become more than the memory holds
        raise ToolError(f"{address} is compressed more than once")
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > FETCH_LIMIT:
            break
    note = f"\n[only the first {FETCH_LIMIT} bytes were read]" if len(body) > FETCH_LIMIT else ""
    kind = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind.endswith(("json", "xml", "javascript", "yaml"))):
        raise ToolError(f"{address} is {kind}, not text")
    text = await asyncio.to_thread(_text_of, body[:FETCH_LIMIT], response.charset_encoding, "html" in kind) + note
    if response.is_error:
        raise ToolError(f"{address} answered {response.status_code} {response.reason_phrase}\n{text}")
    return f"{address}\n\n{text}"


def _text_of(body: bytes, charset: str | None, is_html: bool) -> str:
    text = _decode(body, charset)
    return html_to_text(text) if is_html else text


BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

DECLARATION = re.compile(
    rb"""<meta\s[^>]*?charset\s*=\s*["']?\s*([\w.:-]+) | \A\s*<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE | re.VERBOSE,
)
"""What a page says of its own encoding."""

DECLARATION_BYTES = 1024
"""Where that must stand (https://html.spec.whatwg.org/#determining-the-character-encoding)."""

LABELS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "punycode": "utf-8",  # Python takes minutes for a page in this one
}
"""What pages mean by a name, where it is more than what Python means by it (https://encoding.spec.whatwg.org/#names-and-labels)."""


def _decode(body: bytes, charset: str | None) -> str:
    """A byte order mark counts more than the server's word, and that more than the page's own. Text in an encoding that Python
    does not have is read as UTF-8."""
    for mark, name in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, errors="replace")
    declared = DECLARATION.search(body[:DECLARATION_BYTES])
    if charset is None and declared is not None:
        charset = (declared[1] or declared[2]).decode()
        if charset.lower().startswith("utf-16"):  # it could not have been read
            charset = "utf-8"
    try:
        name = codecs.lookup(charset or "utf-8").name
        return body.decode(LABELS.get(name, name), errors="replace")
    except (LookupError, UnicodeError):
        return body.decode(errors="replace")


TOKEN = re.compile(
    r"""
    <!--.*?(?:-->|\Z)
    | <(?P<raw>script|style)(?=[\s/>]).*?(?:</(?P=raw)[^>]*(?:>|\Z)|\Z)
    | <(?P<end>/?)(?P<tag>[a-z][^\s/>]*+)(?P<attributes>(?:=\s*+"[^"]*"|=\s*+'[^']*'|[^>])*+)(?:>|\Z)
    | <[!?/][^>]*(?:>|\Z)
    | (?P<text>[^<]+|<)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""A piece of HTML. A piece without an end extends to the end of the page: so any page is read in one pass, where
html.parser takes hours for a page of 2 MB that is made for that (https://github.com/python/cpython/issues/135462)."""

HREF = re.compile(r"""(?<![\w-])href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+))""", re.IGNORECASE)

BLOCK_TAGS = """
address article blockquote br dd div dl dt footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table
td th title tr ul
"""

BLOCKS = frozenset(BLOCK_TAGS.split())

HIDDEN = frozenset({"noscript", "template", "svg"})


def html_to_text(page: str) -> str:
    """What a reader would see: no markup, no scripts; a line for each block; links with their addresses."""
    text: list[str] = []
    links: list[str] = []
    hidden = 0
    for token in TOKEN.finditer(page):
        tag = (token["tag"] or "").lower()
        if tag in HIDDEN:
            hidden = max(0, hidden + (-1 if token["end"] else 1))
        elif tag in BLOCKS:
            text.append("\n")
        elif tag == "a" and not token["end"]:
            links.append(_href(token["attributes"]))
        elif tag == "a" and links and (href := links.pop()) and not href.startswith(("#", "javascript:")):
            text.append(f" [{href}]")
        elif token["text"] and not hidden:
            text.append(html.unescape(token["text"]))
    lines = (re.sub(r"[ \t\r\f\v]+", " ", line).strip() for line in "".join(text).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _href(attributes: str) -> str:
    found = HREF.search(attributes)
    return html.unescape(next(filter(None, found.groups()), "")) if found else ""

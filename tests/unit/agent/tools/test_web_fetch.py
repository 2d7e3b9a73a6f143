from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import pytest

from agent.tools import web_fetch
from agent.tools.router import ToolRouter
from agent.tools.tool import ToolResult
from agent.tools.web_fetch import html_to_text, may_reach, web_fetch_tool

pytestmark = pytest.mark.anyio

PAGE = b"""<html><head><title>A page</title><script>evil()</script><style>p {}</style></head>
<body><h1>Head</h1><p>One   two <a href="/next">more</a> <a href="#top">up</a></p><ul><li>a<li>b</ul></body></html>"""


@contextlib.asynccontextmanager
async def website(pages: dict[str, tuple[str, bytes]]) -> AsyncIterator[str]:
    """Answers a path with the given first lines and body; yields the address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        head, body = pages[path]
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        writer.close()  # once all of it is sent, or the client has heard enough
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def fetch(url: str, *networks: str) -> ToolResult:
    return await ToolRouter((web_fetch_tool(networks),)).call("web_fetch", {"url": url})


async def test_a_page_comes_as_text() -> None:
    async with website({"/": ("200 OK\r\nContent-Type: text/html; charset=utf-8", PAGE)}) as site:
        result = await fetch(f"{site}/", "127.0.0.0/8")
    assert result.output == f"{site}/\n\nA page\n\nHead\n\nOne two more [/next] up\n\na\nb"


async def test_redirects_are_followed_and_each_is_checked() -> None:
    pages = {
        "/a": ("302 Found\r\nLocation: /b", b""),
        "/b": ("200 OK\r\nContent-Type: text/plain", b"here"),
        "/out": ("302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/", b""),
        "/file": ("302 Found\r\nLocation: file:///etc/passwd", b""),
        "/again": ("302 Found\r\nLocation: /again", b""),
    }
    async with website(pages) as site:
        assert (await fetch(f"{site}/a", "127.0.0.0/8")).output == f"{site}/b\n\nhere"
        for path, problem in (("/out", "not a public address"), ("/file", "not an http"), ("/again", "redirects")):
            result = await fetch(f"{site}{path}", "127.0.0.0/8")
            assert (result.success, problem in result.output) == (False, True)


async def test_limits_of_size_kind_and_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_fetch, "FETCH_LIMIT", 1000)
    pages = {
        "/big": ("200 OK\r\nContent-Type: text/plain", b"x" * 500_000),
        "/image": ("200 OK\r\nContent-Type: image/png", b"\x89PNG"),
        "/none": ("404 Not Found\r\nContent-Type: text/plain", b"no such page"),
    }
    async with website(pages) as site:
        big = await fetch(f"{site}/big", "127.0.0.0/8")
        assert big.output.endswith("x\n[only the first 1000 bytes were read]")
        assert len(big.output) < 1200
        assert "image/png, not text" in (await fetch(f"{site}/image", "127.0.0.0/8")).output
        none = await fetch(f"{site}/none", "127.0.0.0/8")
        assert (none.success, "404 Not Found\nno such page" in none.output) == (False, True)


async def test_what_is_no_answer_is_told_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    twice = gzip.compress(gzip.compress(bytes(1_000_000)))
    pages = {
        "/nowhere": ("302 Found\r\nLocation: http://host:port/", b""),
        "/label": (f"302 Found\r\nLocation: http://{'a' * 64}.example/", b""),
        "/gzip": ("200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip", b"no gzip"),
        "/bomb": ("200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip, gzip", twice),
    }
    problems = {
        "/nowhere": "Invalid URL in location",
        "/label": "cannot be resolved",
        "/gzip": "DecodingError",
        "/bomb": "more than once",
    }
    async with website(pages) as site:
        for path, problem in problems.items():
            result = await fetch(f"{site}{path}", "127.0.0.0/8")
            assert (result.success, problem in result.output) == (False, True), result
    assert not caplog.records


META = "<meta charset=windows-1251><p>привет</p>".encode("cp1251")
XML = "<?xml version='1.0' encoding='Shift_JIS'?><p>日本</p>".encode("cp932")
HTTP_EQUIV = "<META http-equiv='Content-Type' content='text/html; charset=gb2312'><p>中文镕</p>".encode("gb18030")


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/html", META, "привет"),
        ("text/html", HTTP_EQUIV, "中文镕"),
        ("application/xhtml+xml", XML, "日本"),
        ("text/html; charset=utf-8", "<meta charset=windows-1251><p>é</p>".encode(), "é"),
        ("text/html", b" " * 1024 + "<meta charset=windows-1251><p>é</p>".encode(), "é"),
        ("text/html", "<meta charset=utf-16><p>é</p>".encode(), "é"),
        ("text/plain; charset=iso-8859-1", b"\x93quoted\x94", "“quoted”"),
        ("text/plain; charset=iso-8859-1", b"\xef\xbb\xbf" + "é".encode(), "é"),
        ("text/plain", "é".encode("utf-16"), "é"),
        ("text/plain", b"\xfe\xff" + "é".encode("utf-16-be"), "é"),
    ],
)
async def test_a_page_is_read_in_the_encoding_that_it_declares(kind: str, body: bytes, text: str) -> None:
    async with website({"/": (f"200 OK\r\nContent-Type: {kind}", body)}) as site:
        assert (await fetch(f"{site}/", "127.0.0.0/8")).output == f"{site}/\n\n{text}"


@pytest.mark.parametrize("charset", ["nonsense", "punycode", "idna", "hex"])
async def test_an_unknown_encoding_is_read_as_utf_8(charset: str) -> None:
    async with website({"/": (f"200 OK\r\nContent-Type: text/plain; charset={charset}", "né".encode())}) as site:
        assert (await fetch(f"{site}/", "127.0.0.0/8")).output == f"{site}/\n\nné"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1/", "not a public address"),
        ("http://localhost:1/", "not a public address"),
        ("http://[::1]:1/", "not a public address"),
        ("http://[::ffff:10.0.0.1]/", "not a public address"),
        ("http://10.0.0.1/", "not a public address"),
        ("http://0x7f000001/", "not a public address"),
        ("ftp://example.org/", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("nonsense", "not an http"),
    ],
)
async def test_what_is_not_public_is_refused(url: str, problem: str) -> None:
    result = await fetch(url)
    assert not result.success
    assert problem in result.output


def test_which_addresses_may_be_reached() -> None:
    private = ("10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1")
    hidden = ("::", "fe80::1", "fd00::1", "64:ff9b:1::1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:192.168.0.1")
    assert not any(may_reach(ip_address(address), ()) for address in (*private, *hidden))
    assert all(may_reach(ip_address(address), ()) for address in ("1.1.1.1", "2606:4700::1111"))
    assert may_reach(ip_address("10.1.2.3"), (ip_network("fd00::/8"), ip_network("10.0.0.0/8")))


def test_broken_html_is_read_as_far_as_it_goes() -> None:
    assert html_to_text("<p>a</script><b>b<script>x</p>") == "ab"
    assert html_to_text("<p title=it's>5 < 6 &amp; a<b>c</b></p><!-- <p> --><SCRIPT>if(a<b)</SCRIPT >d<svg>e</svg>") == (
        "5 < 6 & ac\nd"
    )
    assert html_to_text("<a class='>' href='/q?a=1&amp;b=2'>one</a> <a data-href=no>two</a> <a href=x>three</a> <a") == (
        "one [/q?a=1&b=2] two three [x]"
    )


@pytest.mark.parametrize("piece", ["<a b=", "<a", "<a href=\"'", "<!--", "</", "<script", "<![CDATA[", "&", "<div>"])
def test_html_that_is_made_to_take_for_ever_does_not(piece: str) -> None:
    hidden = {"&": "&" * 400_000, "</": ""}
    assert html_to_text(piece * 400_000) == hidden.get(piece, "")

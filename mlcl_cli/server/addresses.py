"""Images fetched from the web: only public addresses, whatever redirects say."""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urljoin, urlsplit

import httpx

from mlcl_cli.server.problems import ProblemError

MAX_REDIRECTS = 3
TIMEOUT = 10.0  # seconds, for everything
REDIRECTS = (301, 302, 303, 307, 308)
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_resolvers = ThreadPoolExecutor(8, "resolve")  # of their own: a name's server may take its time
PORTS = {"http": 80, "https": 443}


async def fetch_image(url: str, limit: int) -> bytes:
    """The bytes at a web address, at most `limit`.

    Each host is resolved once and the connection goes to that address, so that a name cannot lead elsewhere afterwards.
    Raises ProblemError for an address that is not public, and for whatever goes wrong.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            for _ in range(MAX_REDIRECTS + 1):
                found = await _fetch(url, limit)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError, TimeoutError) as error:
        raise _problem("cannot be fetched") from error
    raise _problem("redirects too often")


async def _fetch(url: str, limit: int) -> bytes | str:
    """The content, or the address that it redirects to."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if parts.scheme not in PORTS or not host or parts.username is not None:
        raise _problem("is not an http or https address")
    if port not in (None, PORTS[parts.scheme]):
        raise _problem("names a port other than the usual one")
    address = await _public_address(host, PORTS[parts.scheme])
    target = parts._replace(netloc=_netloc(address)).geturl()
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client,
        client.stream(
            "GET",
            target,
            headers={"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": host},
        ) as response,
    ):
        if response.status_code in REDIRECTS:
            return str(response.headers.get("location", ""))
        if response.status_code != httpx.codes.OK:
            raise _problem(f"answers with status {response.status_code}")
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > limit:
                raise _problem(f"is larger than {limit / 2**20:g} MiB")
        return bytes(content)


async def _public_address(host: str, port: int) -> str:
    """An address of the host, all of which are public."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_resolvers, look_up)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise _problem("leads to an address that is not public")
    return addresses[0]


def _netloc(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def is_public(address: str) -> bool:
    """Whether an IP address is of the public network, also one of IPv4 within one of IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip not in GLOBAL_UNICAST or ip.sixtofour is not None or ip.teredo is not None:
            return False
    return ip.is_global and not ip.is_multicast


def _problem(what: str) -> ProblemError:
    return ProblemError(422, f"the address {what}", where="image", remedy="Send the image itself")

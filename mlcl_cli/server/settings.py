"""What a server is started with, and the limits on what it accepts."""

from dataclasses import dataclass, field
from pathlib import Path

from mlcl_cli.config import Profile

KEY_VARIABLE = "MLCL_API_KEY"


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest requests that are accepted. Sizes are in bytes, lengths in characters, times in seconds."""

    body: int = 16 * 2**20
    bodies: int = 256 * 2**20  # of all requests at once
    bulk_body: int = 2**30
    bulk_line: int = 32 * 2**20
    body_seconds: float = 30
    text: int = 1_000
    where: int = 2_000
    id: int = 500
    exclude: int = 1_000
    k: int = 200
    values: int = 10_000  # of a JSON text
    listed: int = 1_000  # values after `in`
    page: int = 200  # items of the catalog at once


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What each worker of a server needs. Without a `key`, nothing can be written.

    Requests that arrive while others are encoded are encoded together, at most `max_batch` at once. While `max_waiting`
    requests are being answered, further ones are refused. With `hosts`, requests must name one of them,
    localhost or an IP address.
    """

    profile: Profile
    combining_function: str | None = None
    checkpoint: Path | None = None
    key: str | None = field(default=None, repr=False)
    allow_urls: bool = False
    hosts: tuple[str, ...] | None = None
    max_batch: int = 64
    max_waiting: int = 256
    limits: Limits = Limits()

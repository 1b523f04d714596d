"""Where the server is, and how to speak of it without telling secrets."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from durably.core.errors import ValidationError

_OPTIONS: Final = ("authToken", "tls", "poll_interval")
_DEFAULT_POLL_SECONDS: Final = 0.5
_SHORTEST_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Address:
    """A libSQL server: where it is reached, with which token, and how often to look for news while idle."""

    url: str
    token: str | None
    poll_seconds: float

    @staticmethod
    def parse(url: str) -> Address:
        """Return the address of a database URL. Raises `ValidationError`, never showing the token."""
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError as error:
            raise _refuse("it is not a URL", "libsql://host?authToken=...") from error
        if not host:
            raise _refuse("it names no host", "libsql://host?authToken=...")
        if parts.username or parts.password:
            raise _refuse("it has a user or password", "the token as ?authToken=...")
        port, options = _port(parts), _options(parts)
        is_secure = _is_secure(parts.scheme, options.get("tls"))
        netloc = f"[{host}]" if ":" in host else host
        if port is not None:
            netloc += f":{port}"
        return Address(
            url=f"{'https' if is_secure else 'http'}://{netloc}{parts.path.rstrip('/')}",
            token=options.get("authToken") or None,
            poll_seconds=_poll_seconds(options.get("poll_interval")),
        )

    @property
    def name(self) -> str:
        """Return the database as messages name it."""
        return f"database {self.url}"


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError as error:
        text = parts.netloc.rpartition(":")[2]
        # What is no number may be a secret.
        shown = f" {text}" if text.isdecimal() else ""
        raise _refuse(f"the port{shown} is not a number up to 65535", "libsql://host:8080?authToken=...") from error


def _options(parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise ValidationError(
                f"Invalid database option {name!r}: libSQL knows {', '.join(_OPTIONS)}", field="database", value=name
            )
    return options


def _is_secure(scheme: str, tls: str | None) -> bool:
    if tls not in (None, "0", "1"):
        raise ValidationError(f"Invalid database option tls={tls!r}: must be 0 or 1", field="database", value=tls)
    if scheme == "libsql":
        return tls != "0"
    if tls is not None and (tls == "1") != (scheme == "https"):
        raise _refuse(f"tls={tls} contradicts {scheme}://", "one of the two")
    return scheme == "https"


def _poll_seconds(text: str | None) -> float:
    if text is None:
        return _DEFAULT_POLL_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not isfinite(seconds) or seconds < _SHORTEST_POLL_SECONDS:
        raise ValidationError(
            f"Invalid database option poll_interval={text!r}: must be seconds, {_SHORTEST_POLL_SECONDS} or more",
            field="database",
            value=text,
        )
    return seconds


def _refuse(what: str, expected: str) -> ValidationError:
    return ValidationError(f"Invalid database URL: {what}; expected {expected}", field="database")

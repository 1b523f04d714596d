"""The HTTP client: one request, one answer, and what to say when there is none."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import httpx

from durably.core.errors import StoreError, StoreUnavailableError, ValueRefusedError
from durably.stores.libsql import hrana
from durably.stores.libsql.address import Address
from durably.stores.libsql.hrana import CLOSE, Json, NotHranaError, Rows, Statement, StatementFailedError

_TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
_RENEWAL_TIMEOUT: Final = httpx.Timeout(5.0, connect=2.0)
_PATH: Final = "/v2/pipeline"

_TOKEN_REFUSED: Final = frozenset({401, 403})
_TOO_LARGE: Final = 413
_FOR_NOW: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_BIG: Final = "SQLITE_TOOBIG"
_PASSING: Final = ("SQLITE_FULL", "SQLITE_IOERR", "STREAM_EXPIRED")

NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Server:
    """What is known of a server: its address, and whether it wants its streams closed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.closes_streams = True
        self.headers = {} if address.token is None else {"authorization": f"Bearer {address.token}"}

    def body(self, request: Json, *, closes: bool) -> str:
        """Return what to post. A stream that is not closed costs the server a connection for some seconds."""
        requests = [request, CLOSE] if closes else [request]
        return json.dumps({"requests": requests}, ensure_ascii=False, separators=(",", ":"))

    def cannot_close(self, response: httpx.Response) -> bool:
        """Tell whether the server did nothing because it cannot close; that is left out from now on."""
        if response.is_error and "unknown variant `close`" in response.text:
            self.closes_streams = False
            return True
        return False

    def answer(self, response: httpx.Response) -> Any:
        """Return the answer of the protocol. Raises `StoreError` saying what is wrong."""
        if response.is_success:
            try:
                return response.json()
            except ValueError as error:
                raise self.not_a_server(response.text[:200]) from error
        said = response.text[:300].strip()
        name, status = self.address.name, response.status_code
        if status in _TOKEN_REFUSED:
            token = "the authToken" if self.address.token else "a request without authToken"
            raise StoreError(f"{name} refused {token}: give a valid one as ?authToken=... ({status} {said})")
        if status == _TOO_LARGE:
            raise ValueRefusedError(f"{name} takes no request of this size ({status} {said})")
        if status in _FOR_NOW:
            raise StoreUnavailableError(f"{name} cannot answer now ({status} {said})")
        raise StoreError(f"{name} refused the request: is there a libSQL server? ({status} {said})")

    def not_a_server(self, said: str) -> StoreError:
        """Return the error for an answer that is not of the protocol."""
        return StoreError(
            f"{self.address.name} does not answer as a libSQL server does: see that the URL is right ({said})"
        )

    def unreachable(self, error: httpx.HTTPError) -> StoreUnavailableError:
        """Return the error for no answer at all."""
        said = str(error) or type(error).__name__
        if isinstance(error, NEVER_SENT):
            return StoreUnavailableError(
                f"{self.address.name} cannot be reached: see that the host is right and the server runs ({said})"
            )
        return StoreUnavailableError(
            f"{self.address.name} did not answer: what was asked of it may or may not have happened ({said})"
        )

    def rows_of_query(self, answer: Any) -> Rows:
        """Return the rows of an answer to one statement. Raises `StoreError`."""
        try:
            return hrana.rows_of_query(answer)
        except StatementFailedError as failure:
            raise self.explain(failure) from failure
        except NotHranaError as error:
            raise self.not_a_server(str(error)) from error

    def explain(self, failure: StatementFailedError) -> StoreError:
        """Return our error for a statement that the server refused."""
        said = f"{failure.message} {failure.code}".strip()
        if "no such table: durably_" in failure.message:
            return StoreError(
                f"{self.address.name} has no durably tables yet: call init() or migrate() first ({failure.message})"
            )
        if failure.code.startswith(_TOO_BIG):
            return ValueRefusedError(f"{self.address.name} takes no value of this size ({said})")
        if failure.is_busy or failure.code.startswith(_PASSING):
            return StoreUnavailableError(f"{self.address.name} cannot do it now ({said})")
        return StoreError(f"{self.address.name} failed ({said})")


class Client:
    """Asks from an event loop. Any number of requests may be under way."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def query(self, statement: Statement) -> Rows:
        """Do one statement. Raises `StoreError`."""
        return self.server.rows_of_query(await self._post(hrana.query(statement)))

    async def transact(self, statements: Sequence[Statement]) -> list[Rows]:
        """Do all statements or none, in one round trip. Raises `StatementFailedError`, `StoreError`."""
        answer = await self._post(hrana.transaction(statements))
        try:
            return hrana.rows_of_transaction(answer, len(statements))
        except NotHranaError as error:
            raise self.server.not_a_server(str(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    async def _post(self, request: Json) -> Any:
        # Noted for this request: the answer to another one may tell meanwhile that closing is not known.
        closes = self.server.closes_streams
        response = await self._send(self.server.body(request, closes=closes))
        if closes and self.server.cannot_close(response):
            response = await self._send(self.server.body(request, closes=False))
        return self.server.answer(response)

    async def _send(self, body: str) -> httpx.Response:
        try:
            return await self._open().post(_PATH, content=body)
        except httpx.HTTPError as error:
            raise self.server.unreachable(error) from error

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            # Connections belong to the loop they were made on; those of a loop that is gone went with it.
            self._loop = loop
            self._http = httpx.AsyncClient(**_settings(self.server), timeout=_TIMEOUT)
        return self._http


class BlockingClient:
    """Asks from a thread of its own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._http = httpx.Client(**_settings(server), timeout=_RENEWAL_TIMEOUT)

    def query(self, statement: Statement) -> Rows:
        """Do one statement. Raises `StoreError`."""
        return self._server.rows_of_query(self._post(hrana.query(statement)))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, request: Json) -> Any:
        closes = self._server.closes_streams
        response = self._send(self._server.body(request, closes=closes))
        if closes and self._server.cannot_close(response):
            response = self._send(self._server.body(request, closes=False))
        return self._server.answer(response)

    def _send(self, body: str) -> httpx.Response:
        try:
            return self._http.post(_PATH, content=body)
        except httpx.HTTPError as error:
            raise self._server.unreachable(error) from error


def _settings(server: Server) -> dict[str, Any]:
    url = server.address.url
    return {
        "base_url": url,
        "headers": {"content-type": "application/json", **server.headers},
        # Reading the certificates of all authorities takes longer than many requests; plain HTTP needs none.
        "verify": _authorities() if url.startswith("https:") else False,
    }


@lru_cache(maxsize=1)
def _authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context()

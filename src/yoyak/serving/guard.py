"""What the page's server answers: its own page on this machine, and no more than that needs."""

import json
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError
from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
JOIN = "/gradio_api/queue/join"
LISTEN = "/gradio_api/queue/data"
POSTS = (JOIN, "/gradio_api/cancel", "/gradio_api/reset")
"""Where the page posts to; Gradio would take uploads, recordings and calls past its queue elsewhere."""
NOT_READ = ("/gradio_api/proxy=", "/gradio_api/file", "/gradio_api/upload")
"""Beginnings of what the page never asks for: other servers' files and this machine's."""
MOST_BYTES = 4_000_000
"""Of a request; a dialogue of `web.MOST_CHARACTERS` takes a sixth of it, and no letter more than 12 bytes in JSON."""
MOST_PASSED_OVER = 64_000_000
"""Bytes of too long a request that are read and dropped, so that the page is there to hear the answer."""
MOST_SESSIONS = 2_000
"""Pages whose answers Gradio keeps until they are fetched."""
MOST_UNREAD = 8
"""Requests of a page that fetches no answer: Gradio would keep them all."""
# Which language the page is switched to is not known here.
TOO_LONG = "대화가 너무 깁니다. 나누어서 요약해 주세요. · The dialogue is too long: summarise parts of it."
BUSY = "기다리는 요청이 너무 많습니다. 잠시 뒤에 다시 해 주세요. · Too many requests are waiting: try again later."
NOT_OF_THE_PAGE = (
    "이 페이지가 보낼 수 없는 요청입니다. 페이지를 새로 고쳐 주세요. · No request of this page's: load it anew."
)


class _Request(BaseModel):
    """What Gradio gets to read of a request; what else there may be in it is left out."""

    session_hash: Annotated[str, StringConstraints(pattern="^[0-9a-z]{1,32}$")]
    """A page's name, of its own choice. Gradio keeps it for as long as the server runs."""


class _Example(_Request):
    fn_index: Literal[0]
    data: tuple[()]


class _Summarize(_Request):
    fn_index: Literal[1]
    data: tuple[str | None, list[str]]
    """A dialogue, and names of models."""


# Of another type, Gradio ends in a traceback in the terminal.
_REQUEST: TypeAdapter[_Example | _Summarize] = TypeAdapter(
    Annotated[_Example | _Summarize, Field(discriminator="fn_index")]
)


class Guard:
    """An ASGI middleware in front of Gradio's routes; `port` is the server's, `models` are those that it offers."""

    def __init__(self, app: ASGIApp, port: int, models: Collection[str]) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}" for host in HOSTS} | {host for host in HOSTS if port == 80}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._models = frozenset(models)
        self._sessions = _Sessions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            body = await _body(receive)
            if scope["path"] == JOIN:
                body = self._checked(body)
            if scope["path"] == LISTEN:
                await self._listen(scope, _Exchange(body, receive, send))
            else:
                await _Exchange(body, receive, send).run(self._app, scope)
        except _RefusedError as refused:
            await _answer(send, refused.status, refused.text)
        except _HungUpError:
            pass  # Nobody is there to answer.

    def _check(self, scope: Scope) -> None:
        """Refuse what is none of the page's requests."""
        headers = Headers(scope=scope)
        # A name of somebody else's that leads here (DNS rebinding) would let their page read ours.
        if headers.get("host") not in self._hosts:
            raise _RefusedError(421, "another host is meant")
        if headers.get("origin", next(iter(self._origins))) not in self._origins:
            raise _RefusedError(403, "another page asks")
        if scope["type"] != "http" or scope["path"].startswith(NOT_READ):
            raise _RefusedError(404, "not here")
        if scope["method"] not in ("GET", "HEAD") and scope["path"] not in POSTS:
            raise _RefusedError(404, "not here")

    def _checked(self, body: bytes) -> bytes:
        """A request to the queue, written anew: Gradio reads what was checked here, and no more."""
        try:
            request = _REQUEST.validate_json(body)
        except ValidationError:
            raise _RefusedError(400, NOT_OF_THE_PAGE) from None
        if isinstance(request, _Summarize) and not self._models.issuperset(request.data[1]):
            raise _RefusedError(400, NOT_OF_THE_PAGE)
        if not self._sessions.joins(request.session_hash):
            raise _RefusedError(503, BUSY)
        return request.model_dump_json().encode()

    async def _listen(self, scope: Scope, exchange: "_Exchange") -> None:
        """Of a page that has never asked, or has hung up, Gradio knows nothing, and says so in a traceback."""
        session = QueryParams(scope["query_string"]).get("session_hash", "")
        if session not in self._sessions:
            raise _RefusedError(404, NOT_OF_THE_PAGE)
        try:
            await exchange.run(self._app, scope)
        finally:
            self._sessions.has_listened(session, exchange.is_over)


class _Sessions:
    """Pages that have asked, the latest last, and how many of their requests they have not fetched the answers of."""

    def __init__(self) -> None:
        self._unread: dict[str, int] = {}

    def __contains__(self, session: str) -> bool:
        return session in self._unread

    def joins(self, session: str) -> bool:
        """Whether one more request may wait for its reader."""
        unread = self._unread.pop(session, 0)
        self._unread[session] = min(unread + 1, MOST_UNREAD)
        if len(self._unread) > MOST_SESSIONS:
            self._unread.pop(next(iter(self._unread)))
        return unread < MOST_UNREAD

    def has_listened(self, session: str, to_the_end: bool) -> None:
        """Gradio forgets a page that hangs up."""
        if session in self._unread and to_the_end:
            self._unread[session] = 0
        else:
            self._unread.pop(session, None)


class _RefusedError(Exception):
    """A request is answered here."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


class _HungUpError(Exception):
    """Who asks is gone before the request has come."""


class _Exchange:
    """One request that is let through, and its answer."""

    def __init__(self, body: bytes, receive: Receive, send: Send) -> None:
        self._body: bytes | None = body
        self._receive, self._send = receive, send
        self._refused = False
        """Whether the answer is ours: what Gradio sends is dropped."""
        self.is_over = False
        """Whether all of the answer was sent."""

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._replayed, self._told_in_both)

    async def _replayed(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _told_in_both(self, message: Message) -> None:
        """The page shows what stands in an answer that refuses."""
        if message["type"] == "http.response.start" and message["status"] == 503:
            # Gradio's own, of a full queue.
            self._refused = True
            await _answer(self._send, 503, BUSY)
        elif not self._refused:
            await self._send(message)
            self.is_over = message["type"] == "http.response.body" and not message.get("more_body", False)


async def _body(receive: Receive) -> bytes:
    """All of a request. Too long a one is read on and dropped, so that the page is there to hear the answer."""
    parts: list[bytes] = []
    received = 0
    more = True
    while more and received < MOST_PASSED_OVER:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUpError
        part = message.get("body", b"")
        received += len(part)
        if received <= MOST_BYTES:
            parts.append(part)
        more = message.get("more_body", False)
    if received > MOST_BYTES:
        raise _RefusedError(413, TOO_LONG)
    return b"".join(parts)


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    # What is left of the request is not read.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""What the page's server answers: its own page on this machine, and no more than that needs."""

import json

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
POSTS = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")
"""Where the page posts to; Gradio would take uploads, recordings and calls past its queue elsewhere."""
NOT_READ = ("/gradio_api/proxy=", "/gradio_api/file", "/gradio_api/upload")
"""Beginnings of what the page never asks for: other servers' files and this machine's."""
MOST_BYTES = 4_000_000
"""Of a request; a dialogue of `web.MOST_CHARACTERS` takes a sixth of it, and no letter more than 12 bytes in JSON."""
MOST_PASSED_OVER = 64_000_000
"""Bytes of too long a request that are read and dropped, so that the page is there to hear the answer."""
TOO_LONG = "대화가 너무 깁니다. 나누어서 요약해 주세요."
BUSY = "기다리는 요청이 너무 많습니다. 잠시 뒤에 다시 해 주세요."


class Guard:
    """An ASGI middleware in front of Gradio's routes; `port` is the server's."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{host}:{port}" for host in HOSTS} | {host for host in HOSTS if port == 80}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif fault := self._fault(scope):
            await _answer(send, *fault)
        else:
            await _Exchange(receive, send).run(self._app, scope)

    def _fault(self, scope: Scope) -> tuple[int, str] | None:
        """Status and text where the request is none of the page's."""
        headers = Headers(scope=scope)
        # A name of somebody else's that leads here (DNS rebinding) would let their page read ours.
        if headers.get("host") not in self._hosts:
            return 421, "another host is meant"
        if headers.get("origin", next(iter(self._origins))) not in self._origins:
            return 403, "another page asks"
        if scope["type"] != "http" or scope["path"].startswith(NOT_READ):
            return 404, "not here"
        if scope["method"] not in ("GET", "HEAD") and scope["path"] not in POSTS:
            return 404, "not here"
        return None


class _TooLongError(Exception):
    """More came than a request may have, whatever its header says."""


class _Exchange:
    """One request that is let through, and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._received = 0
        self._answered = False
        """Whether the answer is ours: what Gradio sends is dropped."""

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._counted, self._in_korean)
        except _TooLongError:
            await self._answer_in_its_place(413, TOO_LONG)

    async def _counted(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received <= MOST_BYTES:
            return message
        while message.get("more_body") and self._received < MOST_PASSED_OVER:
            message = await self._receive()
            self._received += len(message.get("body", b""))
        raise _TooLongError

    async def _in_korean(self, message: Message) -> None:
        """The page shows what stands in an answer that refuses."""
        if message["type"] == "http.response.start" and self._received > MOST_BYTES:
            await self._answer_in_its_place(413, TOO_LONG)
        elif message["type"] == "http.response.start" and message["status"] == 503:
            # Gradio's own, of a full queue.
            await self._answer_in_its_place(503, BUSY)
        elif not self._answered:
            await self._send(message)

    async def _answer_in_its_place(self, status: int, text: str) -> None:
        if not self._answered:
            self._answered = True
            await _answer(self._send, status, text)


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    # What is left of the request is not read.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

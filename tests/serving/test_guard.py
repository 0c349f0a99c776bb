"""The page's server under attack: other hosts, other pages, uploads, and requests without end."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from yoyak.serving import web
from yoyak.serving.guard import BUSY, MOST_BYTES, TOO_LONG

SUMMARIZE = 1
"""Place of the page's second button among its events."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a page whose model is never asked: whatever is sent here is refused before."""
    pytest.importorskip("gradio")

    def load(name: str) -> Any:
        raise AssertionError(f"{name} is asked")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    page = web.build(None, ["bart_mini"], load)  # type: ignore[arg-type]
    web._launch(page, free)
    yield free
    page.close()


def answer(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and text; `host` and `origin` among the headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    given = {"host": f"127.0.0.1:{port}", "content-type": "application/json"} | headers
    connection.request(method, path, body, given)
    found = connection.getresponse()
    text = found.read().decode()
    connection.close()
    return found.status, text


def join(port: int, data: object, session: str = "one") -> tuple[int, str]:
    body = {"data": data, "fn_index": SUMMARIZE, "session_hash": session}
    return answer(port, "POST", "/gradio_api/queue/join", json.dumps(body).encode())


def shown(port: int, data: object, session: str) -> str:
    """What the page gets to show."""
    assert join(port, data, session)[0] == 200
    _, events = answer(port, "GET", f"/gradio_api/queue/data?session_hash={session}")
    return events.encode().decode("unicode_escape").encode("latin-1", "ignore").decode(errors="ignore") + events


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_its_own_names_are_answered(port: int, host: str) -> None:
    assert answer(port, "GET", "/", host=f"{host}:{port}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1.nip.io:{port}"]
)
def test_other_names_that_lead_here_are_not(port: int, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/queue/join")):
        assert answer(port, method, path, b"{}", host=host.format(port=port))[0] == 421


def test_other_pages_are_not_answered(port: int) -> None:
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        assert answer(port, "POST", "/gradio_api/queue/join", b"{}", origin=origin)[0] == 403
    assert answer(port, "GET", "/config", origin=f"http://localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["upload", "upload/", "run/predict", "call/summarize", "api/predict", "process_recording", "component_server"],
)
def test_it_takes_no_uploads_and_no_calls_past_its_queue(port: int, path: str) -> None:
    assert answer(port, "POST", f"/gradio_api/{path}", b"{}")[0] == 404


@pytest.mark.parametrize(
    "path", ["file=/etc/passwd", "file/etc/passwd", "proxy=http://127.0.0.1:1/", "upload_progress"]
)
def test_it_gives_no_files_and_fetches_none(port: int, path: str) -> None:
    assert answer(port, "GET", f"/gradio_api/{path}")[0] == 404


def test_a_request_without_end_is_cut_off(port: int) -> None:
    assert answer(port, "POST", "/gradio_api/queue/join", b" " * (MOST_BYTES + 1)) == (
        413,
        json.dumps({"detail": TOO_LONG}, ensure_ascii=False),
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        chunk = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
        try:
            for _ in range(128):
                connection.sendall(chunk)
        except ConnectionError:
            return  # It has closed the connection.
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"data": 1}', b"[" * 100_000, b'{"data": null}'])
def test_what_is_no_request_gets_an_error(port: int, body: bytes) -> None:
    status, _ = answer(port, "POST", "/gradio_api/queue/join", body)
    assert 400 <= status <= 500


def test_too_long_a_dialogue_is_refused_before_any_work(port: int) -> None:
    said = shown(port, ["가" * (web.MOST_CHARACTERS + 1), ["bart_mini"]], "long")
    assert "200,001" in said
    assert "process_completed" in said


@pytest.mark.parametrize(
    "data", [[None, ["bart_mini"]], [7, []], [{"a": 1}, None], ["가", ["evil"]], ["#Person1#:", []], []]
)
def test_what_the_page_would_never_send_ends(port: int, data: object) -> None:
    assert "process_completed" in shown(port, data, f"odd{hash(str(data))}")


def test_more_than_may_wait_are_refused_in_korean(port: int) -> None:
    answers = [join(port, ["", []], f"many{number}") for number in range(4 * web.MOST_WAITING)]
    refused = {text for status, text in answers if status == 503}
    assert refused <= {json.dumps({"detail": BUSY}, ensure_ascii=False)}

"""The page's server under attack: other hosts, other pages, uploads, and requests without end."""

import http.client
import json
import socket
from collections.abc import Iterator
from time import sleep
from typing import Any

import pytest

from yoyak.serving import web
from yoyak.serving.guard import BUSY, MOST_BYTES, MOST_UNREAD, NOT_OF_THE_PAGE, TOO_LONG

SUMMARIZE = 1
"""Place of the page's second button among its events."""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page whose model is never asked: whatever is sent here is refused before."""
    pytest.importorskip("gradio")

    def load(name: str) -> Any:
        raise AssertionError(f"{name} is asked")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = int(probe.getsockname()[1])
    page = web.build(None, ["bart_mini"], load)  # type: ignore[arg-type]
    web._launch(page, free, ["bart_mini"])
    yield page
    page.close()


@pytest.fixture
def port(page: Any) -> int:
    return int(page.server_port)


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


def listen(port: int, session: str) -> tuple[int, str]:
    return answer(port, "GET", f"/gradio_api/queue/data?session_hash={session}")


def shown(port: int, data: object, session: str) -> str:
    """What the page gets to show."""
    assert join(port, data, session)[0] == 200
    _, events = listen(port, session)
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


NOT_READ = (400, json.dumps({"detail": NOT_OF_THE_PAGE}, ensure_ascii=False))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"data": 1}', b"[" * 100_000, b'{"data": null}'])
def test_what_is_no_request_is_refused(port: int, body: bytes) -> None:
    assert answer(port, "POST", "/gradio_api/queue/join", body) == NOT_READ


def test_too_long_a_dialogue_is_refused_before_any_work(port: int) -> None:
    said = shown(port, ["가" * (web.MOST_CHARACTERS + 1), ["bart_mini"]], "long")
    assert "200,001" in said
    assert "process_completed" in said


@pytest.mark.parametrize("data", [[None, ["bart_mini"]], ["가", []], ["#Person1#:", []]])
def test_a_request_that_lacks_something_ends(port: int, data: object) -> None:
    assert "process_completed" in shown(port, data, f"odd{abs(hash(str(data)))}")


@pytest.mark.parametrize(
    "data",
    [
        [7, []],
        [{"a": 1}, None],
        ["가", None],
        ["가", "bart_mini"],
        ["가", [["bart_mini"]]],
        ["가", ["evil"]],
        ["\ud800", []],
        ["가"],
        ["가", [], 1],
        [],
    ],
)
def test_what_the_page_would_never_send_is_refused(port: int, data: object, capfd: pytest.CaptureFixture[str]) -> None:
    """Gradio would end in a traceback in the terminal."""
    assert join(port, data) == NOT_READ
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        {"fn_index": 99},
        {"fn_index": -1},
        {"fn_index": None},
        {"fn_index": 1.5},
        {"fn_index": 0},
        {"session_hash": ""},
        {"session_hash": None},
        {"session_hash": 3},
        {"session_hash": "x" * 33},
        {"session_hash": "../x"},
    ],
)
def test_a_page_or_a_button_that_there_is_not_is_refused(
    port: int, change: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    """Gradio would keep any name for as long as the server runs, and end in a traceback for want of a button."""
    body = {"data": ["", []], "fn_index": SUMMARIZE, "session_hash": "one"} | change
    assert answer(port, "POST", "/gradio_api/queue/join", json.dumps(body).encode()) == NOT_READ
    assert capfd.readouterr() == ("", "")


def test_gradio_reads_what_was_checked_alone(port: int) -> None:
    """`batched` would have it read the dialogue as a list of such."""
    body = {"data": ["", []], "fn_index": SUMMARIZE, "session_hash": "more", "batched": True, "event_id": "x"}
    assert answer(port, "POST", "/gradio_api/queue/join", json.dumps(body).encode())[0] == 200
    assert "대화가 비어 있습니다" in json.dumps(
        [json.loads(line.removeprefix("data: ")) for line in listen(port, "more")[1].splitlines() if line],
        ensure_ascii=False,
    )


def test_who_has_not_asked_gets_no_answer(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert listen(port, "nobody") == (404, NOT_READ[1])
    assert capfd.readouterr() == ("", "")


def test_who_fetches_no_answer_is_refused_in_the_end_and_heard_again_once_it_does(port: int) -> None:
    answers = [joined(port, "deaf") for _ in range(MOST_UNREAD + 1)]
    assert [status for status, _ in answers] == [200] * MOST_UNREAD + [503]
    assert listen(port, "deaf")[0] == 200
    assert joined(port, "deaf")[0] == 200


def joined(port: int, session: str) -> tuple[int, str]:
    """The answer once the queue has room."""
    sleep(0.2)
    return join(port, ["", []], session)


def test_memory_holds_the_latest_pages_alone(page: Any, port: int) -> None:
    for number in range(web.MOST_OPEN + 8):
        shown(port, ["", []], f"page{number}")
    assert len(page.app.state_holder.session_data) == web.MOST_OPEN


def test_more_than_may_wait_are_refused_in_korean(port: int) -> None:
    answers = [join(port, ["", []], f"many{number}") for number in range(4 * web.MOST_WAITING)]
    refused = {text for status, text in answers if status == 503}
    assert refused <= {json.dumps({"detail": BUSY}, ensure_ascii=False)}

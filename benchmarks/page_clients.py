"""What eight clients of a page's server do at once, for benchmarks/serve_load.py: ask, hang up, and ask strangely."""

import html
import json
import random
import re
import time
from collections import Counter
from http.client import HTTPConnection

from yoyak.serving.web import MOST_CHARACTERS

PORT = 7871
LONG_BYTES = 100_000
SUMMARY = re.compile(r'data-model="(\w+)">.*?<p class="summary">(.*?)</p>', re.DOTALL)
JOIN, LISTEN = "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash="
DIALOGUE = "#Person1#: 안녕하세요."
SUMMARIES = dict[str, dict[str, str]]
"""Of each model, each dialogue's."""


def body(data: object, session: str = "SESSION", function: object = 1) -> bytes:
    return json.dumps({"data": data, "fn_index": function, "session_hash": session}).encode()


STRANGE = [
    ("an empty dialogue", body(["", []]), 200, "대화가 비어 있습니다"),
    ("1 MB", body(["가나다라 마바사\n" * 45_000, ["bart_mini"]]), 200, f"{MOST_CHARACTERS:,}자까지"),
    ("5 MB", body(["a" * 5_000_000, []]), 413, "대화가 너무 깁니다"),
    ("no JSON", b'{"data": [', 400, "detail"),
    ("wrong types", body([7, None]), 400, "detail"),
    ("wrong types", body([{"a": 1}, None]), 400, "detail"),
    ("wrong types", b"[]", 400, "detail"),
    ("a model that is not there", body([DIALOGUE, ["../bart_mini"]]), 400, "detail"),
    ("wrong fn_index", body([DIALOGUE, []], function=99), 400, "detail"),
    ("wrong fn_index", body([DIALOGUE, []], function="1"), 400, "detail"),
    ("a page's name of 1 MB", body([DIALOGUE, []], "x" * 1_000_000), 400, "detail"),
]
"""Kind, body, status of the answer, and what it says."""


class Client:
    """One client, what it has asked, and which answers were wrong."""

    def __init__(self, number: int, expected: SUMMARIES) -> None:
        self._draw = random.Random(number)
        self._expected = expected
        self.asked: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, until: float) -> None:
        """Until that time of `time.monotonic`."""
        while time.monotonic() < until:
            session = f"{self._draw.getrandbits(60):x}"
            act = self._draw.choices([self._ask, self._hang_up, self._ask_strangely], [5, 1, 4])[0]
            try:
                act(session)
            except OSError as error:
                self.wrong.append(f"{act.__name__}: {error!r}")

    def _drawn(self) -> tuple[str, str]:
        """A model, and a dialogue, a fifth of them long ones."""
        model, long = self._draw.choice(list(self._expected)), self._draw.random() < 0.2
        return model, self._draw.choice([text for text in self._expected[model] if is_long(text) == long])

    def _ask(self, session: str) -> None:
        model, text = self._drawn()
        status, said = request("POST", JOIN, body([text, [model]], session))
        if status == 200:
            _, said = request("GET", LISTEN + session)
        self.asked[f"a dialogue{' of 100 kB' * is_long(text)}, `{model}`"] += 1
        if shown_in(said) != (model, self._expected[model][text]):
            self.wrong.append(f"{model}, {text[:40]!r}: {status} {shown_in(said)}")

    def _hang_up(self, session: str) -> None:
        """Before the request has come whole, or while the answer comes."""
        model, text = self._drawn()
        sent, connection = body([text, [model]], session), HTTPConnection("127.0.0.1", PORT, timeout=600)
        if self._draw.random() < 0.5:
            request("POST", JOIN, sent)
            connection.request("GET", LISTEN + session)
            connection.getresponse().read(20)
        else:
            connection.putrequest("POST", JOIN)
            connection.putheader("content-length", str(len(sent)))
            connection.endheaders(sent[: len(sent) // 2])
        connection.close()
        self.asked["hung up in the middle"] += 1

    def _ask_strangely(self, session: str) -> None:
        kind, sent, expected, says = self._draw.choice(STRANGE)
        status, said = request("POST", JOIN, sent.replace(b"SESSION", session.encode()))
        if status == 200:
            _, said = request("GET", LISTEN + session)
        self.asked[kind] += 1
        if status != expected or says not in said:
            self.wrong.append(f"{kind}: {status} {said[-300:]}")


def is_long(text: str) -> bool:
    return len(text.encode()) >= LONG_BYTES


def request(method: str, path: str, sent: bytes | None = None) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", PORT, timeout=600)
    connection.request(method, path, sent, {"content-type": "application/json"})
    answer = connection.getresponse()
    said = answer.read().decode()
    connection.close()
    return answer.status, said


def shown_in(said: str) -> tuple[str, str] | None:
    """Model and summary of the only card in the end, as a reader sees it."""
    events = [json.loads(line.removeprefix("data: ")) for line in said.splitlines() if line.startswith("data: ")]
    cards = [
        (model, html.unescape(re.sub("<[^>]+>", "", summary)))
        for event in events
        if event["msg"] == "process_completed" and event["success"]
        for model, summary in SUMMARY.findall(event["output"]["data"][0])
    ]
    return cards[0] if len(cards) == 1 else None

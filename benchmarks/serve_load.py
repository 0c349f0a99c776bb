"""Eight clients at once ask `yoyak serve` for minutes: is each answer its own, and does memory stay bounded?

    make repro
    python benchmarks/serve_load.py --minutes 10

Clients send dialogues of the sample, some of 100 kB, hang up, and send what no page sends. Each summary is compared
with that of `yoyak summarize`, memory is read every five seconds, and Ctrl-C ends the server.
`python docs/generate/reliability.py` writes docs/reliability.md from the results.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import recording
from page_clients import PORT, SUMMARIES, Client, is_long

from yoyak.core import environment, repository
from yoyak.data.dialogues import read_dialogues
from yoyak.serving import inputs, summarizer

CLIENTS, SHORT, LONG, EVERY_SECONDS = 8, 24, 4, 5
RESULTS = Path("benchmarks/results/serve_load.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Eight clients at once ask the page's server.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--models", nargs="+", default=["gemma3_270m", "bart_mini"], help="trained ones")
    parser.add_argument("--draft", type=Path, help="a file for the results, also of uncommitted code")
    asked = parser.parse_args()
    if asked.draft is None:
        recording.require_clean_tree()
    expected = summaries(asked.models)
    results = {
        "device": environment.describe()["device"],
        "commit": repository.commit(),
        "command": " ".join(["python", "benchmarks/serve_load.py", *sys.argv[1:]]),
        "minutes": asked.minutes,
        "different_summaries": {model: len(set(said.values())) for model, said in expected.items()},
        **measured(expected, 60 * asked.minutes),
    }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (asked.draft or RESULTS).write_text(text + "\n")
    print(text)
    if results["wrong"] or results["tracebacks"]:
        sys.exit("error: there are faults; see above")


def dialogues() -> list[str]:
    """Of the sample, and some that are joined to 100 kB; no two are alike."""
    texts = [row.dialogue for row in read_dialogues(Path("data/sample/train.csv"), with_summary=False)]
    draw, long = random.Random(0), [""] * LONG
    for number in range(LONG):
        while not is_long(long[number]):
            long[number] += f"{draw.choice(texts)}\n"
    return texts[:SHORT] + long


def summaries(models: list[str]) -> SUMMARIES:
    """What `yoyak summarize` says of each dialogue alone. (In bf16, many together are rounded otherwise.)"""
    params, load_once = summarizer.open_project(), cache(summarizer.load)
    said: SUMMARIES = {model: {} for model in models}
    for text in dialogues():
        for made in summarizer.summarize(params, models, [inputs.of_text(text, "a dialogue")], load_once):
            said[made.model][text] = made.predictions[0].text
    return said


def measured(expected: SUMMARIES, seconds: float) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("r+") as log:
        server = subprocess.Popen(["yoyak", "serve", "--port", str(PORT)], stdout=log, stderr=log)
        try:
            while "Ctrl+C ends it" not in (text := Path(log.name).read_text()):
                if server.poll() is not None:
                    sys.exit(f"error: the server has ended: {text}")
                time.sleep(0.5)
            clients, memory = load(expected, server.pid, seconds)
            started = time.monotonic()
            server.send_signal(signal.SIGINT)
            server.wait(60)
        finally:
            server.kill()
        return {
            "clients": CLIENTS,
            "every_seconds": EVERY_SECONDS,
            "requests": dict(sorted(sum((client.asked for client in clients), Counter()).items())),
            "wrong": [line for client in clients for line in client.wrong],
            "tracebacks": Path(log.name).read_text().count("Traceback"),
            "seconds_to_end": round(time.monotonic() - started, 1),
            "memory_mib": [round(each) for each in memory],
        }


def load(expected: SUMMARIES, server: int, seconds: float) -> tuple[list[Client], list[float]]:
    """The clients, and the server's memory in MiB, read again and again."""
    clients = [Client(number, expected) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(time.monotonic() + seconds,)) for client in clients]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(psutil.Process(server).memory_info().rss / 2**20)
        time.sleep(EVERY_SECONDS)
    return clients, memory


if __name__ == "__main__":
    main()

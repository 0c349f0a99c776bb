"""A `python` for test projects that has imported already what stages and commands import.

A stage is a process of its own, and to import what it trains with takes one 5 to 12 s of CPU, many times what a tiny
twin computes; `dvc` and `yoyak` take 1 to 2 s. Here a server imports these libraries once; each stage or command is a
fork of it, with the arguments, environment, folder, standard streams and exit code that its caller gives and gets. The
project's own code is imported anew each time. What the libraries read from the environment when they are imported must
be as it was then: else, and for all but scripts, the real Python runs.

    python tests/warm_python.py serve SOCKET    the server
    python tests/warm_python.py SCRIPT …        what a stage's command calls, and `Project.run` for a program
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET = "WARM_PYTHON_SOCKET"
PROGRAMS = ("dvc", "yoyak")
IMPORTED = (
    *("torch", "transformers.trainer", "transformers.integrations", "peft", "bitsandbytes", "trl.trainer.sft_trainer"),
    *("dvclive", "dvc.cli", "dvc.repo", "dvc.commands.repro", "dvc.stage.cache", "dulwich.porcelain", "wandb"),
    *("pandas", "matplotlib.pyplot", "pydantic", "rich.progress", "typer", "mecab"),
)
READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "OMP_", "MKL_", "TORCH", "CUDA_", "ONEDNN_", "ATEN_", "MPL", "TYPER_")
"""Beginnings of names in the environment."""
READ_LATER = ("CUDA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS")
"""By the first look for a GPU, and the first compilation."""


@contextmanager
def warm_python(folder: Path) -> Iterator[None]:
    """While this is open, `environment` has the server's address; `folder/bin` gets the command `python`."""
    address = str(folder / "socket")
    # Without site-packages, which the client has no use for, Python starts in a tenth of the time.
    client = f"{sys.executable} -IS {Path(__file__).resolve()}"
    _write_command(folder / "bin/python", client)
    # Apart: not on the PATH of what a test kills, which would kill the client alone.
    for program in PROGRAMS:
        _write_command(folder / "programs" / program, f"{client} {Path(sys.executable).with_name(program)}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    server = subprocess.Popen([sys.executable, __file__, "serve", address], env=environment, start_new_session=True)
    os.environ[SOCKET] = address
    try:
        yield
    finally:
        del os.environ[SOCKET]
        server.terminate()
        server.wait()


def _write_command(path: Path, begins: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {begins} "$@"\n')
    path.chmod(0o755)


def program(name: str) -> str:
    """The warm one of this name, where one is offered."""
    address = os.environ.get(SOCKET)
    return str(Path(address).parent / "programs" / name) if address and name in PROGRAMS else name


# The server


def serve(address: str) -> None:
    for library in IMPORTED:
        __import__(library)
    read = _read_at_import(os.environ)
    # What forks collect as garbage does not look at what is here, which would copy it, too.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(16)
        listening.settimeout(1)
        parent = os.getppid()
        # Killed, pytest ends nobody.
        while os.getppid() == parent:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            connection.setblocking(True)
            message, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
            request = json.loads(message)
            if differ := _read_at_import(request["environment"]).items() ^ read.items():
                _note_cold(address, request, sorted({key for key, _ in differ}))
                connection.sendall(b"cold")
            elif os.fork() == 0:
                listening.close()
                _run(connection, streams, request)
            for stream in streams:
                os.close(stream)
            connection.close()


def _note_cold(address: str, request: dict[str, Any], keys: list[str]) -> None:
    with Path(f"{address}.cold").open("a") as file:
        file.write(f"{' '.join(request['arguments'])}: {', '.join(keys)}\n")


def told_cold() -> list[str]:
    """What ran with the real Python because its environment was another one, and which names differed."""
    path = Path(f"{os.environ[SOCKET]}.cold")
    return path.read_text().splitlines() if path.exists() else []


def _read_at_import(environment: Any) -> dict[str, str]:
    return {
        key: value for key, value in environment.items() if key.startswith(READ_AT_IMPORT) and key not in READ_LATER
    }


def _run(connection: socket.socket, streams: list[int], request: dict[str, Any]) -> None:
    """In the fork: the script as Python would run it, and then the end of the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script, *arguments = request["arguments"]
    sys.argv = [script, *arguments]
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [str(Path(script).resolve().parent), *map(os.path.abspath, path), *sys.path[1:]]
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
    code = _outcome(script)
    threading._shutdown()
    # As Python ends: Weights & Biases writes its file only then.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"{code}\n".encode())
    os._exit(code)


def _outcome(script: str) -> int:
    """The exit code."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001, a script may raise anything, and ends by it as Python ends
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _die_with(connection: socket.socket) -> None:
    """A caller that was killed takes the stage along, as the stage itself would have been killed."""
    if not connection.recv(1):
        os.kill(os.getpid(), signal.SIGKILL)


# The client


def call(arguments: list[str]) -> None:
    address = os.environ.get(SOCKET)
    if address is None or not arguments or not (arguments[0].endswith(".py") or Path(arguments[0]).name in PROGRAMS):
        _really(arguments)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        _connect(connection, address)
        request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        answers = connection.makefile()
        process = answers.readline().strip()
        if process == "cold":
            _really(arguments)
        for forwarded in (signal.SIGINT, signal.SIGTERM):
            signal.signal(forwarded, lambda number, _: os.kill(int(process), number))
        code = answers.readline()
        # Without a code the stage was killed.
        sys.exit(int(code) if code else 128 + signal.SIGKILL)


def _connect(connection: socket.socket, address: str) -> None:
    """The server listens once it has imported everything."""
    for _ in range(1200):
        try:
            connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.1)
        else:
            return
    sys.exit(f"error: no answer from {address}")


def _really(arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        call(sys.argv[1:])

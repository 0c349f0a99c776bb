"""A Hugging Face Hub of one repository, on this machine: what the hub's own client asks of the real one."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

REVISION = "a" * 40


@contextmanager
def serve_hub(repository: str, folder: Path, gated: bool = False, licence: str | None = None) -> Iterator[str]:
    """Its address, for `HF_ENDPOINT`; `repository` has the files of `folder`, which `gated` keeps from strangers.

    `licence` is on its model card.
    """

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/{repository}/resolve/{REVISION}/"):
                if gated:
                    return self._refuse()
                return self._send_file(folder / Path(path).name)
            files = [
                {"type": "file", "path": file.name, "rfilename": file.name, "size": file.stat().st_size, "oid": "x"}
                for file in folder.iterdir()
            ]
            whole = {"id": repository, "sha": REVISION, "siblings": files, "private": False, "tags": [], "likes": 0}
            if licence:
                whole["cardData"] = {"license": licence}
            return self._send_json(files if path.startswith(f"/api/models/{repository}/tree/") else whole)

        def _refuse(self) -> None:
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_file(self, file: Path) -> None:
            self._send_head(file.stat().st_size, "application/octet-stream")
            if self.command == "GET":
                self.wfile.write(file.read_bytes())

        def _send_json(self, content: object) -> None:
            encoded = json.dumps(content).encode()
            self._send_head(len(encoded), "application/json")
            self.wfile.write(encoded)

        def _send_head(self, size: int, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing: what a test prints is the project's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serve_uploads(folder: Path, refuses_cards: bool = False) -> Iterator[str]:
    """A hub that takes whatever a token's owner uploads, into `folder/<repository>`; its address, for `HF_ENDPOINT`."""

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            what = self.path.removeprefix("/api/")
            if self.headers.get("Authorization") != "Bearer hf_ofATester":
                return self._answer({"error": "Invalid username or password."}, 401)
            if what == "validate-yaml":
                errors = [{"message": '"license" must be one of the hub\'s'}] if refuses_cards else []
                return self._answer({"errors": errors, "warnings": []}, 400 if refuses_cards else 200)
            if what == "repos/create":
                asked = json.loads(body)
                name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.created.json").write_text(json.dumps(asked))
                return self._answer({"url": f"{address}/{name}", "id": name})
            repository, action = re.fullmatch(r"models/(.+)/(preupload|commit)/main", what.split("?")[0]).groups()
            if action == "preupload":
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
                return self._answer({"files": modes})
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    path = folder / repository / line["value"]["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(line["value"]["content"]))
            return self._answer({"commitUrl": f"{address}/{repository}/commit/{REVISION}", "commitOid": REVISION})

        def _answer(self, content: object, status: int = 200) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *arguments: object) -> None:
            """Nothing, as above."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()

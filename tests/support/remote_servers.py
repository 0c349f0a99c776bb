"""Servers that DVC's remotes lie on, on the loopback interface: SeaweedFS for S3, asyncssh for SSH."""

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import asyncssh
import botocore.session
from project import ROOT

HOST = "127.0.0.1"
ACCESS_KEY, SECRET_KEY = "tester", "secret-of-the-tester"
BUCKET = "team"
SECONDS = 60
"""In which a server must be there."""


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The address of an S3 server that has the bucket `BUCKET`, and takes `ACCESS_KEY` and `SECRET_KEY` alone."""
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin"],
    }
    folder.mkdir()
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(8)
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    command = [
        str(ROOT / ".cache/seaweedfs/bin/weed"),
        "server",
        f"-dir={folder}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-s3",
        f"-s3.config={config}",
        # Further services of its own, which listen elsewhere.
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder}/s3",
        f"-filer.localSocket={folder}/filer",
        "-master.volumeSizeLimitMB=64",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]
    log = folder / "log"
    with log.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=written, cwd=folder) as server:
        try:
            _wait_for(ports[names.index("s3.port")], server, log)
            address = f"http://{HOST}:{ports[names.index('s3.port')]}"
            client = botocore.session.get_session().create_client(
                "s3",
                region_name="us-east-1",
                endpoint_url=address,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
            )
            client.create_bucket(Bucket=BUCKET)
            yield address
        finally:
            server.terminate()


class SshServer(NamedTuple):
    port: int
    key: Path
    """The private key of the only user that may come in."""
    home: Path
    """A home whose `.ssh/known_hosts` knows the server."""


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """An SSH server with SFTP, which shows its users `folder`/files alone."""
    home, files, key = folder / "home", folder / "files", folder / "key"
    for each in (home / ".ssh", files):
        each.mkdir(parents=True)
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user_key.write_private_key(key)
    key.chmod(0o600)
    user_key.write_public_key(folder / "key.pub")

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            HOST,
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(folder / "key.pub"),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(files)),
        )

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(listen(), loop).result(SECONDS)
        public = host_key.export_public_key().decode().strip()
        (home / ".ssh/known_hosts").write_text(f"[{HOST}]:{server.get_port()} {public}\n")
        yield SshServer(server.get_port(), key, home)
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"no server:\n{log.read_text(errors='replace')[-2000:]}")

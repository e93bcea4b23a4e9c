# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real servers that the tests use, S3 and HDFS, and what stands before them to disturb them."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from deeptrain import s3
from deeptrain.hdfs import Hdfs
from deeptrain.namenode import NameNode

JAVA = "-Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss512k"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def needed(variable: str, what: str) -> Path:
    """A file that the tests cannot do without."""
    path = Path(os.environ.get(variable, ""))
    if not path.is_file():
        pytest.fail(f"set {variable} to {what}; 'make training' does", pytrace=False)
    return path.resolve()


# Seconds: more than a slow machine needs that does other work.
LIMIT = 600


def wait_until(condition, what: str, log=lambda: ""):
    """Waits for a condition; fails with what was waited for, and the log."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            if condition():
                return
        except (OSError, LookupError):
            pass
        time.sleep(0.2)
    pytest.fail(f"not within {LIMIT} s: {what}\n{log()}", pytrace=False)


def own_length() -> int:
    """Of a file whose block Cluster.lose_blocks is to find, which it does by the length, in bytes."""
    return 10_000 + secrets.randbelow(50_000)


@dataclass
class S3Server:
    endpoint: str
    bucket: str
    credentials: dict
    # Objects are plain files below it.
    directory: Path

    @property
    def settings(self) -> dict:
        return {"endpoint_url": self.endpoint, "region": "us-east-1", "addressing_style": "path", "ca_bundle": ""}

    @property
    def client(self):
        return s3.connect(self.settings, self.credentials)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def set_etag(self, key: str, etag: str) -> None:
        """Gives an object another ETag, as servers have that encrypt or whose ETags are no MD5s."""
        os.setxattr(self.directory / self.bucket / key, "user.etag", f'"{etag}"'.encode())


@contextlib.contextmanager
def s3_process(data: Path, certificate: Path | None = None, key: Path | None = None):
    """An S3 server, with TLS when it gets a certificate."""
    binary = needed("DEEPTRAIN_TEST_VERSITYGW", "the program versitygw")
    port = free_port()
    credentials = {"aws_access_key_id": "tester", "aws_secret_access_key": secrets.token_hex(16)}
    environment = {
        "ROOT_ACCESS_KEY": credentials["aws_access_key_id"],
        "ROOT_SECRET_KEY": credentials["aws_secret_access_key"],
        "PATH": os.environ["PATH"],
    }
    tls = ["--cert", certificate, "--key", key] if certificate else []
    command = [binary, "--port", f"127.0.0.1:{port}", *tls, "posix", data]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = S3Server(f"http{'s' if certificate else ''}://127.0.0.1:{port}", "data", credentials, data)

    def answers():
        with socket.create_connection(("127.0.0.1", port), 1):
            return True

    try:
        wait_until(answers, "the S3 server answers")
        # In the server's own file system, so that no client is needed that trusts its certificate.
        (data / server.bucket).mkdir()
        yield server
    finally:
        process.kill()
        process.wait()


class Proxy:
    """Accepts the connections to an HTTP server in its place; what it does with each is its subclass's."""

    def __init__(self, endpoint: str):
        host, port = endpoint.removeprefix("http://").split(":")
        self.server = host, int(port)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        # It ends the thread, which could accept the connections of another proxy otherwise.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError


@contextlib.contextmanager
def metadata_service(credentials: dict, refusals: int):
    """The metadata service of a machine with a role; it answers the first requests with an error. Yields its URL."""
    role = "/latest/meta-data/iam/security-credentials/"
    document = {
        "Code": "Success",
        "AccessKeyId": credentials["aws_access_key_id"],
        "SecretAccessKey": credentials["aws_secret_access_key"],
        "Token": "",
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600 * 6)),
    }
    answers = {"/latest/api/token": "token", role: "role", f"{role}role": json.dumps(document)}
    left = refusals

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            nonlocal left
            left -= 1
            self.send_response(503 if left >= 0 else 200)
            self.end_headers()
            self.wfile.write(answers[self.path].encode())

        do_PUT = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Cluster:
    """HDFS of one NameNode and two DataNodes."""

    def __init__(self, directory: Path, home: Path):
        self.directory, self.home = directory, home
        self.port, self.http_port = free_port(), free_port()
        self.processes: dict[str, subprocess.Popen] = {}

    def _configuration(self, name: str, settings: dict) -> Path:
        common = {
            "fs.defaultFS": f"hdfs://127.0.0.1:{self.port}",
            "dfs.replication": "2",
            "dfs.permissions.enabled": "false",
            "dfs.namenode.http-address": f"127.0.0.1:{self.http_port}",
            "dfs.namenode.safemode.extension": "0",
            # A lost DataNode counts as dead after 16 s.
            "dfs.heartbeat.interval": "1",
            "dfs.namenode.heartbeat.recheck-interval": "3000",
            "dfs.namenode.file.close.num-committed-allowed": "1",
            # Blocks whose files are gone are reported after so many seconds, not after hours.
            "dfs.datanode.directoryscan.interval": "2",
            # What a DataNode finds lost is not always in its next heartbeat.
            "dfs.blockreport.intervalMsec": "5000",
            "dfs.namenode.name.dir": str(self.directory / "name"),
        }
        conf = self.directory / f"conf-{name}"
        conf.mkdir(exist_ok=True)
        for file, values in (("core-site.xml", common), ("hdfs-site.xml", {**common, **settings})):
            properties = "".join(f"<property><name>{key}</name><value>{value}</value></property>" for key, value in values.items())
            (conf / file).write_text(f"<configuration>{properties}</configuration>")
        return conf

    def start(self, name: str, *command: str, **settings: str) -> None:
        environment = {
            **os.environ,
            "HADOOP_CONF_DIR": str(self._configuration(name, settings)),
            "HDFS_NAMENODE_OPTS": JAVA,
            "HDFS_DATANODE_OPTS": JAVA,
            "HADOOP_CLIENT_OPTS": JAVA,
            "HADOOP_LOG_DIR": str(self.directory / "logs"),
        }
        log = open(self.directory / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen([self.home / "bin" / "hdfs", *command], env=environment, stdout=log, stderr=log)

    def jmx(self, bean: str) -> dict:
        url = f"http://127.0.0.1:{self.http_port}/jmx?qry=Hadoop:service=NameNode,name={bean}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return json.load(answer)["beans"][0]

    def up(self) -> None:
        self.start("format", "namenode", "-format", "-nonInteractive")
        assert self.processes.pop("format").wait(LIMIT) == 0
        self.start("namenode", "namenode")
        for index in range(2):
            self.start_datanode(index)
        wait_until(lambda: self.jmx("FSNamesystemState")["NumLiveDataNodes"] == 2, "two DataNodes are live")

    def start_datanode(self, index: int) -> None:
        self.start(
            f"datanode{index}",
            "datanode",
            **{
                "dfs.datanode.data.dir": str(self.directory / f"data{index}"),
                "dfs.datanode.address": f"127.0.0.1:{free_port()}",
                "dfs.datanode.http.address": f"127.0.0.1:{free_port()}",
                "dfs.datanode.ipc.address": f"127.0.0.1:{free_port()}",
            },
        )

    @contextlib.contextmanager
    def without_datanode(self, index: int):
        process = self.processes.pop(f"datanode{index}")
        process.kill()
        process.wait()
        try:
            yield
        finally:
            self.start_datanode(index)
            wait_until(lambda: self.jmx("FSNamesystemState")["NumLiveDataNodes"] == 2, "two DataNodes are live")

    def down(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def lose_blocks(self, directory: Hdfs, name: str) -> None:
        """Removes all copies of the block of a file whose length no other file has, and waits until the NameNode knows."""
        length = directory.status(name).length

        def copies() -> list[Path]:
            blocks = self.directory.glob("data*/current/BP*/current/finalized/**/blk_*[0-9]")
            return [file for file in blocks if file.stat().st_size == length]

        # When one DataNode after the other loses its copy, the NameNode may try to replace the first one, and miss no block.
        assert directory.client.set_replication(directory.path(name), 1)
        wait_until(lambda: len(copies()) == 1, "one copy of the block is on the disks")
        for file in copies():
            file.unlink()
        # A DataNode finds it in its next scan of the disk.
        wait_until(lambda: name in set(NameNode(self.http_url).damaged_files(directory)), "the NameNode misses the block")

    def url(self, path: str) -> str:
        return f"hdfs://127.0.0.1:{self.port}{path}"

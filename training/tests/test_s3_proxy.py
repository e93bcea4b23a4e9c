# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3 through a real HTTP proxy on loopback."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from services import free_port

from deeptrain import s3
from deeptrain.check import probe
from deeptrain.job import JobError


class Proxy(BaseHTTPRequestHandler):
    """Forwards requests for storage.invalid, a name that only the proxy resolves, to the S3 server."""

    protocol_version = "HTTP/1.1"

    def forward(self):
        url = urlsplit(self.path)
        self.server.seen.append((self.command, url.hostname))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        upstream.request(self.command, f"{url.path}?{url.query}", body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = forward

    def log_message(self, *arguments):
        """Print nothing."""


@pytest.fixture
def proxy(s3_server):
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.upstream, server.seen = urlsplit(s3_server.endpoint).netloc, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_s3_is_reached_through_the_proxy(s3_server, proxy):
    settings = {**s3_server.settings, "endpoint_url": "http://storage.invalid", "proxy": f"http://127.0.0.1:{proxy.server_address[1]}"}
    probe(s3.connect(settings, s3_server.credentials), f"s3://{s3_server.bucket}/proxied", settings)
    assert [command for command, _host in proxy.seen] == ["PUT", "GET", "GET", "DELETE"]
    assert {host for _command, host in proxy.seen} == {"storage.invalid"}


def test_a_proxy_that_does_not_answer(s3_server):
    settings = {**s3_server.settings, "proxy": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(JobError, match="deeptrain_s3_proxy"):
        probe(s3.connect(settings, s3_server.credentials), f"s3://{s3_server.bucket}/proxied", settings)

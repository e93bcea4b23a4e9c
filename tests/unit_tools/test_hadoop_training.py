# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of role hadoop for a running training, run here with a simulated systemctl and NameNode."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

TASKS = Path(__file__).parents[2] / "roles" / "hadoop" / "tasks" / "training.yml"
RUNS = "/webhdfs/v1/user/deeptrain/runs"


class NameNode(BaseHTTPRequestHandler):
    """Knows runs by their marks: the age in seconds, or None where there is none."""

    def do_GET(self):
        path, marks = self.path.split("?")[0], self.server.marks
        found = None
        if path == RUNS:
            found = {"FileStatuses": {"FileStatus": [{"pathSuffix": run, "type": "DIRECTORY"} for run in marks]}}
        elif path.endswith("/_RUNNING") and (age := marks[path.split("/")[-2]]) is not None:
            found = {"FileStatus": {"modificationTime": int(1000 * (time.time() - age))}}
        body = json.dumps(found or {"RemoteException": {"exception": "FileNotFoundException"}}).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.mark.parametrize(
    ("marks", "refused"),
    [({"fresh": 5, "stale": 500, "none": None}, "run fresh is training"), ({"stale": 500, "none": None}, None), ("down", None)],
)
def test_a_training_elsewhere_is_found_in_hdfs(run_tasks, marks, refused):
    with ThreadingHTTPServer(("127.0.0.1", 0), NameNode) as server:
        server.marks = marks
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        port = 9 if marks == "down" else server.server_address[1]
        variables = {"deeptrain_namenode": {"http_url": f"http://127.0.0.1:{port}"}, "deeptrain_user": "deeptrain", "hadoop_user": "hdfs"}
        done = run_tasks(yaml.safe_load(TASKS.read_text()), variables)
        server.shutdown()
    said = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode != 0) is bool(refused), said
    assert not refused or refused in said

# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before a machine is made, and on a node before anything is installed."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import test_site
import yaml
from conftest import LIMIT, PROJECT, SECRET
from infrastructure_manager import free_port
from test_site import Site


@pytest.fixture
def site(server, tmp_path) -> Site:
    made = Site(server, tmp_path, PROJECT / ".venv/bin")
    made.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    return made


def said(done: subprocess.CompletedProcess) -> str:
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"deeptrain_command": "python x.py"}, 'write deeptrain_command: ["python", "x.py"]'),
        ({"deeptrain_export_ulr": "s3://bucket/models"}, "write deeptrain_export_url"),
        ({"deeptrain_autostop_hour": 12}, "write deeptrain_autostop_hours"),
        ({"deeptrain_of_nothing": 1}, "deeptrain_of_nothing does not exist"),
        ({"tensorflow_chief_run": "x"}, "tensorflow_chief_run does not exist: write deeptrain_run"),
        ({"deeptrain_run": "Not/Right"}, "deeptrain_run is 'Not/Right'"),
        ({"deeptrain_data_url": "/data"}, "deeptrain_data_url is '/data'"),
        ({"deeptrain_autostop_hours": "12h"}, "a number, without a unit"),
        ({"autostop_im_url": "https://im.example.org"}, "autostop_im_credentials is not set"),
        ({"im_cluster_name": "exp2"}, "set name in its im.yml to exp2"),
        ({"im_cluster_cloud": "AWS"}, "im_cluster_cloud is 'AWS': use one of EC2, "),
        ({"im_cluster_cloud": "DeployedNode"}, "set im_cluster_mode to existing_hosts"),
        ({"hadoop_archive": "/nowhere.tar.gz", "deeptrain_validate_remote": True}, "is no file on this controller"),
        ({"hadoop_archive_checksum": "", "hadoop_archive": __file__, "deeptrain_validate_remote": True}, "hadoop_archive_checksum is ''"),
        ({"hadoop_archive": "http://127.0.0.1:9/x", "deeptrain_validate_remote": True}, "hadoop_archive http://127.0.0.1:9/x cannot be fetched"),
    ],
    ids=["list", "name", "hours", "unknown", "copy", "run", "url", "number", "manager", "inventory", "cloud", "former", "file", "checksum", "archive"],
)
def test_refused_before_a_machine_is_made(site, modules, variables, words):
    done = site.run(PROJECT / "playbooks/site.yml", "inventories/im", **variables)
    assert done.returncode != 0 and words in said(done), done.stdout + done.stderr
    assert modules.all() == {}


def test_hosts_have_variables_of_their_groups(site, monkeypatch):
    monkeypatch.delitem(test_site.CLUSTER, "deeptrain_data_url")
    monkeypatch.delitem(test_site.CLUSTER, "im_cluster_cloud")
    hosts = site.inventory()
    groups = yaml.safe_load(hosts.read_text())
    groups["site_a"] = {"children": dict.fromkeys(groups, {}), "vars": {"deeptrain_data_url": "s3://bucket/data"}}
    # Neither has a value on the controller.
    groups["all"] = {"vars": {"hadoop_archive": "{{ inventory_dir }}/hadoop.tar.gz", "firewall_open": [{"port": "{{ their_port }}"}]}}
    hosts.write_text(yaml.safe_dump(groups))
    done = site.run(PROJECT / "playbooks/validate.yml", hosts)
    assert done.returncode == 0, done.stdout
    # Their disk is validated after the variables.
    nodes = site.run(PROJECT / "playbooks/preflight.yml", hosts)
    assert "MiB free in" in said(nodes), nodes.stdout
    del groups["site_a"]["vars"]
    hosts.write_text(yaml.safe_dump(groups))
    assert "deeptrain_data_url is ''" in said(site.run(PROJECT / "playbooks/preflight.yml", hosts))


class Presigned(BaseHTTPRequestHandler):
    """Answers as S3 does to a presigned URL for GET."""

    def do_HEAD(self):
        self.send_error(403)

    def do_GET(self):
        if not self.path.startswith("/archive?"):
            self.send_error(404)
            return
        self.send_response(206 if self.headers["Range"] == "bytes=0-0" else 400)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, *arguments):
        """Say nothing."""


def test_a_presigned_archive(site, serving):
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Presigned)) as server:
        where = f"http://user:{SECRET}@127.0.0.1:{server.server_port}"
        variables = {"deeptrain_validate_remote": True, "deeptrain_s3_access_key_id": "", "deeptrain_s3_secret_access_key": ""}
        done = site.run(PROJECT / "playbooks/validate.yml", "inventories/im", hadoop_archive=f"{where}/archive?X-Amz-Signature={SECRET}", **variables)
        assert done.returncode == 0, done.stdout
        missing = site.run(PROJECT / "playbooks/validate.yml", "inventories/im", hadoop_archive=f"{where}/missing?X-Amz-Signature={SECRET}", **variables)
    assert missing.returncode != 0 and "/missing?… cannot be fetched" in said(missing), missing.stdout
    assert SECRET not in said(done) + said(missing)


@pytest.fixture
def bucket():
    """Return the URL of an S3 server that has one bucket with one object."""
    url = f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [PROJECT / ".cache/venv-moto/bin/moto_server", "--port", url.rpartition(":")[2]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + LIMIT
    try:
        for name in ("bucket", "bucket/data/a"):
            while True:
                try:
                    opener.open(urllib.request.Request(f"{url}/{name}", b"x" if "/" in name else None, method="PUT"), timeout=10).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < end, "the S3 server does not answer"
                    time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(LIMIT)


def test_s3_is_validated_with_the_code_of_the_nodes(site, modules, bucket):
    variables = {
        "hadoop_archive": __file__,
        "deeptrain_validate_remote": True,
        "deeptrain_s3_endpoint_url": bucket,
        "deeptrain_s3_addressing_style": "path",
        "deeptrain_s3_secret_access_key": SECRET,
    }
    done = site.run(PROJECT / "playbooks/validate.yml", "inventories/im", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    refused = site.run(PROJECT / "playbooks/site.yml", "inventories/im", **variables, deeptrain_export_url="s3://missing/models")
    assert refused.returncode != 0 and "the bucket of deeptrain_export_url" in said(refused), refused.stdout + refused.stderr
    model = b'{"configuration": {"command": ["python", "other.py"]}, "files": []}'
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        urllib.request.Request(f"{bucket}/bucket/models/default/manifest.json", model, {"Content-Type": "application/json"}, method="PUT"), timeout=LIMIT
    ).close()
    foreign = site.run(PROJECT / "playbooks/site.yml", "inventories/im", **variables)
    assert foreign.returncode != 0 and "deeptrain_replace_export=true" in said(foreign), foreign.stdout + foreign.stderr
    assert SECRET not in said(done) + said(refused) + said(foreign)
    assert modules.all() == {}
    skipped = site.run(
        PROJECT / "playbooks/validate.yml", "inventories/im", **variables | {"deeptrain_s3_secret_access_key": "", "deeptrain_s3_access_key_id": ""}
    )
    assert skipped.returncode == 0 and "so the nodes use their own" in said(skipped), skipped.stdout


def test_a_controller_that_cannot_install_what_validates_s3(site, bucket):
    site.environment.update(HOME=str(site.directory / "home"), PIP_INDEX_URL="http://127.0.0.1:1", PIP_RETRIES="0", PIP_NO_CACHE_DIR="1")
    variables = {"hadoop_archive": __file__, "deeptrain_s3_endpoint_url": bucket, "deeptrain_s3_secret_access_key": SECRET}
    done = site.run(PROJECT / "playbooks/validate.yml", "inventories/im", **variables, deeptrain_validate_remote=True)
    assert done.returncode != 0 and "boto3" in said(done) and "set deeptrain_validate_remote to false" in said(done), done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_a_processor_without_avx(site):
    (site.directory / "grep").write_text("#!/bin/sh\necho 0\nexit 1\n")
    (site.directory / "grep").chmod(0o755)
    done = site.run(PROJECT / "playbooks/preflight.yml", site.inventory())
    assert done.returncode != 0 and "has no AVX" in said(done), done.stdout


def test_a_disk_too_small_for_the_wheel_with_cuda(site):
    done = site.run(PROJECT / "playbooks/preflight.yml", site.inventory(), tensorflow_wheel="gpu", preflight_min_disk_mib=1, preflight_gpu_disk_mib=10**9)
    assert done.returncode != 0 and "lower preflight_min_disk_mib or preflight_gpu_disk_mib" in said(done), done.stdout

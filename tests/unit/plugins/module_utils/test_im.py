# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers were recorded from server 2.0.0; broken ones are made here."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import ssl
import subprocess

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import (
    Im,
    ImError,
    NotFound,
    authorization,
    client,
    describe_vm,
    parse_auth_file,
    radl_counts,
    radl_deploying,
    radl_masked,
    radl_name,
    radl_positions,
    radl_public_systems,
    radl_secrets,
)
from ansible_collections.deeptrain.cluster.tests.unit.plugins.im_server import SECRET

AUTH = [{"type": "InfrastructureManager", "username": "user", "password": SECRET}, {"id": "dummy", "type": "Dummy"}]


@pytest.fixture
def im(im_server):
    """Return a client of the server."""
    return Im(f"{im_server.url}/", AUTH, timeout=60)


def test_authorization_has_lines_for_the_server_to_split():
    assert authorization(AUTH) == f"type = InfrastructureManager; username = user; password = {SECRET}\\nid = dummy; type = Dummy"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a;b", '"a;b"'),
        ("a=b", '"a=b"'),
        ("it's", '"it\'s"'),
        ('a"b', '"a"\'"\'"b"'),
        ("KEY\nabc\n", "KEY\\\\nabc"),
    ],
)
def test_values_are_escaped(value, written):
    entry = {"type": "InfrastructureManager", "token": value}
    assert authorization([entry]) == f"type = InfrastructureManager; token = {written}"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("text", "must be a list"),
        ([{"username": "user"}], "entry 1 of auth has no type"),
        ([{"type": "Dummy"}], "no entry of type InfrastructureManager"),
        ([{"type": "InfrastructureManager", "username": "user"}], "no entry of type InfrastructureManager"),
        ([{"type": "InfrastructureManager", "token": "a\\nb"}], "backslash before an n"),
        ([{"type": "InfrastructureManager", "token": " a"}], "begins or ends with a blank"),
        ([{"type": "InfrastructureManager", "token": "\u20ac"}], "Latin-1"),
    ],
)
def test_what_cannot_be_carried_is_refused(entries, words):
    with pytest.raises(ImError, match=words):
        authorization(entries)


def test_auth_file_is_read_as_the_server_reads_it(tmp_path):
    key = tmp_path / "key.pem"
    key.write_text("BEGIN\nEND\n")
    text = f"""
    # comment
    type = InfrastructureManager; username = user; password = 'a;b="c'
    id = one; type = OpenNebula; host = host:2633; username = user; password = x=y;
    id = gce; type = GCE; private_key = file({key})
    id = os; type = OpenStack; key = BEGIN\\nEND
    id = curl; type = OpenStack; key = BEGIN\\\\nEND
    """
    assert parse_auth_file(text) == [
        {"type": "InfrastructureManager", "username": "user", "password": 'a;b="c'},
        {"id": "one", "type": "OpenNebula", "host": "host:2633", "username": "user", "password": "x=y"},
        {"id": "gce", "type": "GCE", "private_key": "BEGIN\nEND\n"},
        {"id": "os", "type": "OpenStack", "key": "BEGIN\nEND"},
        # As the server takes it, which curl sends it to as it is.
        {"id": "curl", "type": "OpenStack", "key": "BEGIN\nEND"},
    ]
    assert parse_auth_file(json.dumps(AUTH)) == AUTH


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# none\nid = one; username = user", "line 2 of the auth file has no type"),
        ("type = Dummy; username", "line 1 of the auth file has 'username…' without a value"),
        ("type = GCE; private_key = file(/does/not/exist)", "names /does/not/exist, which cannot be read"),
        ("type = Dummy\ntype = GCE; password = command(/does/not/exist planted)", "the command /does/not/exist in line 2 of the auth file cannot be run"),
        ("type = GCE; password = command()", "line 1 of the auth file has an empty command"),
        ("type = GCE; password = command(true planted)", "the command true in line 1 of the auth file wrote nothing"),
        ("type = GCE; password = command(false planted)", "the command false in line 1 of the auth file failed with status 1"),
        ("type = GCE; password = command(cat /does/not/exist)", "failed with status 1: .*No such file"),
        ('[{"type": "GCE", "password": "command(false planted)"}]', "the command false in entry 1 of the auth file failed"),
    ],
)
def test_bad_auth_file(text, words):
    with pytest.raises(ImError, match=words) as raised:
        parse_auth_file(text)
    assert "planted" not in str(raised.value)


def program(directory, *lines):
    """Return a program that writes these, one at each call, the last one again and again."""
    file = directory / "oidc-token"
    values = directory / "values"
    values.write_text("\n".join(lines) + "\n")
    file.write_text(f"#!/bin/sh\nhead -n 1 {values}\n[ $(wc -l <{values}) = 1 ] || sed -i 1d {values}\n")
    file.chmod(0o755)
    return shlex.quote(str(file))


@pytest.mark.parametrize(
    ("line", "token"),
    [
        ("token = command(echo one two)", "one two"),
        ("token = 'command(echo one;two=three)'", "one;two=three"),
        ("token=command(echo one)", "one"),
        ("token = command(seq 2)", "12"),
    ],
)
def test_command_in_an_auth_file(line, token):
    assert parse_auth_file(f"id = im; type = InfrastructureManager; {line}; host = x")[0] == {
        "id": "im", "type": "InfrastructureManager", "token": token, "host": "x",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["Bearer one-token", "Bearer command(echo one-token)\n"])
def test_bearer_of_the_servers_vault(text):
    im = Im("http://host", parse_auth_file(text))
    assert im._header == "Bearer one-token"
    assert "one-token" in im.secrets


def test_command_runs_at_each_reading(im_server, tmp_path):
    im_server.reply = 200, {"uri-list": []}
    file = tmp_path / "auth.dat"
    file.write_text(f"type = InfrastructureManager; token = command({program(tmp_path, 'first', 'second')})")
    file.chmod(0o600)
    for _number in range(2):
        client({"url": im_server.url, "auth_file": str(file)}).infrastructures()
    assert [headers["Authorization"] for _method, _path, headers in im_server.requests] == [
        f"type = InfrastructureManager; token = {token}" for token in ("first", "second")
    ]


def test_token_that_expires_is_replaced(im_server, tmp_path, monkeypatch):
    """A wait takes longer than a token is valid for."""
    monkeypatch.setenv("IM_AUTH", f"type = InfrastructureManager; token = command({program(tmp_path, 'first', 'second', 'second')})")
    im = client({"url": im_server.url})
    im_server.reply = 401, {"message": "OIDC auth Token expired", "code": 401}
    with pytest.raises(ImError, match="Token expired") as caught:
        im.create("deploy x 1")
    assert caught.value.code == 401
    tokens = [headers["Authorization"].rpartition(" ")[2] for _method, _path, headers in im_server.requests]
    assert tokens == ["first", "second"]
    assert {"first", "second"} <= im.secrets
    # The same one again is no use.
    with pytest.raises(ImError, match="Token expired"):
        im.create("deploy x 1")
    assert len(im_server.requests) == 3


KEY = "-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("source", ["file", "auth"])
def test_key_file_of_google(tmp_path, source):
    """The file holds what the server cannot read: a backslash before an n."""
    text = json.dumps({"type": "service_account", "project_id": "p", "private_key": KEY, "client_email": "a@p.iam.gserviceaccount.com"}, indent=2)
    file = tmp_path / "key.json"
    file.write_text(text)
    own = {"type": "InfrastructureManager", "username": "u", "password": "w"}
    entries = [own, {"id": "gce", "type": "GCE", "password": text}]
    if source == "file":
        entries = parse_auth_file(f"type = InfrastructureManager; username = u; password = w\nid = gce; type = GCE; password = file({file})")
    im = Im("http://host", entries)
    key = KEY.strip().replace("\n", "\\\\n")
    assert im._header.endswith(f"\\nusername = a@p.iam.gserviceaccount.com; project = p; id = gce; type = GCE; password = {key}")
    assert "planted" not in im.scrub(f"the key is {KEY}")


def test_command_in_a_file_that_others_can_write_to(tmp_path):
    file = tmp_path / "auth.dat"
    file.write_text(f"type = InfrastructureManager; token = command(touch {tmp_path}/ran)")
    file.chmod(0o660)
    with pytest.raises(ImError, match="other users can write to auth_file .*: run chmod 600"):
        client({"url": "http://host", "auth_file": str(file)})
    assert not (tmp_path / "ran").exists()


def test_auth_file_that_others_can_read(tmp_path):
    file = tmp_path / "auth.dat"
    file.write_text("type = InfrastructureManager; username = user; password = word")
    warnings = []
    file.chmod(0o600)
    client({"url": "http://host", "auth_file": str(file)}, warnings.append)
    assert warnings == []
    file.chmod(0o644)
    client({"url": "http://host", "auth_file": str(file)}, warnings.append)
    assert len(warnings) == 1
    assert "chmod 600" in warnings[0]


def test_environment_is_the_last_resort(monkeypatch):
    monkeypatch.setenv("IM_AUTH", f"type = InfrastructureManager; token = {SECRET}")
    assert SECRET in client({"url": "http://host"}).secrets
    monkeypatch.delenv("IM_AUTH")
    with pytest.raises(ImError, match="IM_AUTH_FILE or IM_AUTH"):
        client({"url": "http://host"})
    with pytest.raises(ImError, match="IM_URL"):
        client({"url": "host:8800", "auth": AUTH})


@pytest.mark.parametrize(
    ("code", "body", "words", "lost"),
    [
        (400, {"message": f"Error: bad {SECRET}.", "code": 400}, "with 400: Error: bad ********.", False),
        (
            400,
            {"message": "Error:\n\n\tUnknownFieldError: count\n\t\tFile x, line 1, in y\n\t\t\tz()\n", "code": 400},
            "with 400: Error: UnknownFieldError: count.",
            False,
        ),
        (401, {"message": "No authentication data provided", "code": 401}, "See the entry of type InfrastructureManager", False),
        (403, {"message": "Access not granted", "code": 403}, "belongs to another user", False),
        (404, {"message": "Invalid id", "code": 404}, "It does not exist, or no longer", False),
        (409, {"message": "being deleted", "code": 409}, "being deleted. Wait until", False),
        (415, {"message": "Unsupported Media Type", "code": 415}, "with 415: Unsupported Media Type", False),
        (422, {"detail": [{"loc": ["path", "prop"], "msg": "unexpected value", "input": SECRET}]}, "with 422: path.prop: unexpected value.", False),
        (500, b"<html>oops</html>", "(a web page, not a message of the Infrastructure Manager)", True),
        (502, b"", "(no message)", True),
        (504, {"detail": "Operation timed out"}, "Operation timed out. It may still be carried out", True),
    ],
)
def test_refusals(im_server, im, code, body, words, lost):
    im_server.reply = code, body
    with pytest.raises(ImError) as caught:
        im.create("deploy x 1")
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert (caught.value.code, caught.value.outcome_unknown) == (code, lost)


def test_authorization_does_not_follow_a_redirection(im_server, im):
    im_server.reply = 302, b"", {"Location": "http://127.0.0.1:1/"}
    with pytest.raises(ImError, match="redirects to http://127.0.0.1:1/: set url"):
        im.infrastructures()
    assert len(im_server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"[1]", b'{"uri": "http', b"{}", b'{"uri": 1, "state": null}'])
def test_answers_that_are_not_the_servers(im_server, im, body):
    im_server.reply = 200, body
    with pytest.raises(ImError, match="does not answer as an Infrastructure Manager") as caught:
        im.create("deploy x 1")
    assert caught.value.outcome_unknown
    with pytest.raises(ImError) as caught:
        im.state("1")
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize("body", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"HTTP/1.1 200"])
def test_half_an_answer_is_a_lost_one(im_server, im, body):
    im_server.reply = None, body
    with pytest.raises(ImError) as caught:
        im.create("deploy x 1")
    assert caught.value.outcome_unknown
    assert caught.value.code is None


def test_late_answer_is_a_lost_one():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        im = Im(f"http://127.0.0.1:{silent.getsockname()[1]}", AUTH, timeout=0.2)
        with pytest.raises(ImError, match="no answer from") as caught:
            im.create("deploy x 1")
    assert caught.value.outcome_unknown


def test_refused_connection_is_no_lost_answer():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ImError, match="make sure that the Infrastructure Manager runs there") as caught:
        Im(f"http://127.0.0.1:{port}", AUTH).create("deploy x 1")
    assert not caught.value.outcome_unknown


def test_tls_that_is_none(im_server):
    im = Im(im_server.url.replace("http:", "https:"), AUTH, timeout=60)
    with pytest.raises(ImError, match="ca_path"):
        im.infrastructures()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl for a certificate")
def test_tls_is_verified_with_the_users_own_authority(im_server, tmp_path):
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=im"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    im_server.socket = context.wrap_socket(im_server.socket, server_side=True)
    im_server.reply = 200, {"uri-list": []}
    url = im_server.url.replace("http:", "https:")
    with pytest.raises(ImError, match="CERTIFICATE_VERIFY_FAILED.*set ca_path"):
        Im(url, AUTH, timeout=60).infrastructures()
    assert im_server.requests == []
    assert Im(url, AUTH, ca_path=str(certificate), timeout=60).infrastructures() == []
    assert Im(url, AUTH, validate_certs=False, timeout=60).infrastructures() == []


def test_ids_come_from_uris(im_server, im):
    im_server.reply = 200, {"uri-list": [{"uri": "http://host:8800/infrastructures/1/vms/10"}, {"uri": "http://host:8800/infrastructures/1/vms/9"}]}
    assert im.vms("1") == ["9", "10"]
    method, path, headers = im_server.requests[0]
    assert (method, path) == ("GET", "/infrastructures/1")
    assert headers["Accept"] == "application/json"
    assert SECRET in headers["Authorization"]


def test_find_leaves_out_what_goes(monkeypatch, im):
    names, states = {"1": "a", "2": "a", "3": "b"}, {"1": "configured", "2": "deleting"}

    def radl(infrastructure):
        if infrastructure == "gone":
            raise NotFound("gone", 404)
        return f"description {names[infrastructure]} ()"

    monkeypatch.setattr(im, "infrastructures", lambda: ["1", "gone", "2", "3"])
    monkeypatch.setattr(im, "radl", radl)
    monkeypatch.setattr(im, "state", lambda infrastructure: {"state": states[infrastructure]})
    assert im.find("a") == ["1"]


RADL = """description my-cluster ( name = 'my cluster' )
network private ()
system worker ( net_interface.0.connection = 'private' )
deploy chief 1
  deploy worker 2 ec2 # two
deploy worker 1 ec2
"""


def test_radl():
    assert radl_name(RADL) == "my cluster"
    assert radl_name("description other\ndeploy x 1") == "other"
    assert radl_name("system x ()") is None
    assert radl_counts(RADL) == {"chief": 1, "worker": 3}
    other = radl_deploying(RADL, {"worker": 4, "chief": 0})
    assert radl_counts(other) == {"worker": 4}
    assert other.endswith("\ndeploy worker 4 ec2\n")
    assert other.startswith("description my-cluster")


def test_places_in_a_radl():
    words = "with 400: Line 2: Parse error in: LexToken(SYSTEM,'system',2,18)."
    assert radl_positions("description x (\n  system a ()", words) == "with 400: Line 2: Parse error in: 'system' in line 2, column 3."


def test_vm():
    classes = [
        {"class": "network", "id": "public", "outbound": "yes", "outports": "6006/tcp,2222/tcp-22/tcp"},
        {"class": "network", "id": "private"},
        {
            "class": "system",
            "id": "chief",
            "state": "running",
            "net_interface.0.connection": "private",
            "net_interface.0.ip": "10.0.0.4",
            "net_interface.0.dns_name": "chief-0",
            "net_interface.1.connection": "public",
            "net_interface.1.ip": "203.0.113.4",
            "disk.0.os.credentials.username": "ubuntu",
            "disk.0.os.credentials.password": "old",
            "disk.0.os.credentials.new.password": "new",
        },
    ]
    assert describe_vm("3", classes) == {
        "id": "3",
        "system": "chief",
        "state": "running",
        "hostname": "chief-0",
        "private_ip": "10.0.0.4",
        "public_ip": "203.0.113.4",
        "ssh_port": 2222,
        "user": "ubuntu",
        "password": "new",
        "private_key": None,
    }
    assert describe_vm("4", [])["system"] is None
    assert describe_vm("5", [{"class": "system", "net_interface.0.ip": "192.0.3.5"}])["public_ip"] == "192.0.3.5"


@pytest.mark.parametrize(
    ("outports", "port"),
    [
        ("2022/tcp-22/tcp", 2022),
        ("2022-22", 2022),
        ("192.0.2.0/24-2022/tcp-22/tcp", 2022),
        ("192.0.2.0/24-2022-22/tcp,198.51.100.7/32-2022-22/tcp", 2022),
        ("192.0.2.0/24-22/tcp", 22),
        ("2022/udp-22/udp,6006/tcp,22-2222,20:22/tcp", 22),
        # As the Infrastructure Manager has it: the last one counts.
        ("2022-22,22/tcp", 22),
        (None, 22),
    ],
)
@pytest.mark.parametrize("used", [True, False])
def test_port_of_ssh(outports, port, used):
    network = {"class": "network", "id": "public", "outbound": "yes", "outports": outports}
    connection = {"net_interface.0.connection": "public"} if used else {}
    vm = describe_vm("0", [network, {"class": "system", "net_interface.0.ip": "192.0.3.5", **connection}])
    assert (vm["public_ip"], vm["ssh_port"]) == ("192.0.3.5", port)


def test_port_of_ssh_without_an_address_outside():
    network = {"class": "network", "id": "public", "outbound": "yes", "outports": "2022-22"}
    assert describe_vm("0", [network, {"class": "system", "net_interface.0.ip": "10.0.0.5"}])["ssh_port"] == 22


def test_port_of_ssh_is_that_of_the_vms_own_network():
    networks = [{"class": "network", "id": name, "outbound": "yes", "outports": ports} for name, ports in (("own", "2022-22"), ("other", "2023-22"))]
    for connection, port in (("own", 2022), ("other", 2023)):
        system = {"class": "system", "net_interface.0.ip": "192.0.3.5", "net_interface.0.connection": connection}
        assert describe_vm("0", [*networks, system])["ssh_port"] == port


def test_systems_that_are_open_to_outside():
    text = """
        description x ( name = 'network closed ( outbound = \\'no\\'' )
        network closed ( outbound = 'no' ) # network closed ( outbound = 'yes' )
        network open ( outports = '22/tcp' and outbound = 'yes' )
        system both ( net_interface.0.connection = 'closed' and net_interface.1.connection='open' and disk.0.applications contains (name = 'a') )
        system inside ( net_interface.0.connection = 'closed' )
        system none ()
        configure inside ( @begin\nsystem inside ( net_interface.0.connection = 'open' )\n@end )
        contextualize ( system inside configure inside step 1 )
        """
    assert radl_public_systems(text) == {"both"}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("disk.0.os.credentials.password = 'one two'", "one two"),
        ("disk.0.os.credentials.private_key = 'one\ntwo'", "one\ntwo"),
        (r"password = 'it\'s one'", "it's one"),
        ('{password: "one"}', "one"),
        ('{password: "one', "one"),
        ("{password: one, user: x}", "one"),
        ("{user: x, password: one}", "one"),
        ("password: one,two", "one,two"),
        ("s3_secret_access_key: one/two+three=  # four", "one/two+three="),
        ("token: |\n  one\n  two\nother: x", "|\n  one\n  two"),
    ],
)
def test_secrets_of_a_radl(text, secret):
    assert secret in radl_secrets(text)
    assert not any("x" in found or "four" in found for found in radl_secrets(text))
    assert "one" not in radl_masked(text)

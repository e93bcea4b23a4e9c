# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of the Infrastructure Manager's REST API, for its server 2.0.0."""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import time
import uuid
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from ansible.module_utils.urls import make_context

RADL = "text/plain"
TOSCA = "text/yaml"

# States that an infrastructure does not leave by itself.
FINAL_STATES = ("configured", "unconfigured", "stopped", "off", "failed")

# Keys of an authorization with values that are not secret.
_PUBLIC_KEYS = ("id", "type", "host", "username", "domain", "tenant", "project", "auth_version", "service_region")
# Minimum length of a masked secret: shorter ones would mask parts of ordinary words.
_SECRET_LENGTH = 4

# Maximum length of a server's error message.
_MESSAGE_LENGTH = 2000

# Pauses between polls of a new infrastructure, which the server lists some milliseconds before it has its name.
_NAME_PAUSES = (0.2, 0.5, 1, 2, 0)
# Statuses of a proxy whose upstream server is unavailable, or does not answer in time.
_UNAVAILABLE = (502, 503, 504)
# Pauses between retries of a call while the server is unavailable, in seconds.
_FIRST_PAUSE, _MAX_PAUSE = 0.2, 5
# Timeout of a command in an auth file, in seconds, and maximum length of its error output in a message.
_COMMAND_SECONDS, _COMMAND_ERROR_LENGTH = 60, 300

# Parts of a RADL with arbitrary text: strings, comments and playbooks.
_QUOTED = re.compile(r"'(?:[^\\']|\\.)*'|#[^\n]*|@begin.*?@end", re.DOTALL)
_DESCRIPTION = re.compile(r"\bdescription\s+(?P<id>[\w.-]+)\s*(\((?P<features>[^)]*)\))?")
_BLOCK = re.compile(r"\b(?P<kind>network|system)\s+(?P<id>[\w.-]+)\s*\(")
_CONNECTION = re.compile(r"\bnet_interface\.[0-9]+\.connection\s*=\s*'([^']*)'")
_OUTBOUND = re.compile(r"\boutbound\s*=\s*'yes'")
_NAME_FEATURE = re.compile(r"\bname\s*=\s*'([^']*)'")
_DEPLOY = re.compile(
    r"\bdeploy\s+(?P<system>[\w.-]+)\s+(?P<count>[0-9]+)"
    r"(\s+(?!(?:ansible|configure|contextualize|deploy|description|network|system)\b)(?P<cloud>[\w.-]+))?"
)
# In the features of a RADL, and in the YAML of its playbooks.
_FEATURE = re.compile(r"(?P<key>[\w.]+)\s*(?P<operator>>=|<=|=|>|<)\s*(?:(?P<number>[0-9.]+)\s*(?P<unit>[kmgt]i?b?\b)?|'(?P<word>[^']*)')", re.IGNORECASE)
_SECRET = re.compile(
    r"(?P<key>\b[\w.]*(?:password|passwd|passphrase|private_key|secret|token)[\w.]*[ \t]*[=:][ \t]*)"
    r"(?P<value>'(?:[^\\']|\\.)*'|\"[^\"\n]*\"?|[|>][+-]?[ \t]*\n(?P<indent>[ \t]+)[^\n]*(?:\n(?P=indent)[^\n]*)*|[^\s'\"#{|>][^\s#]*)",
    re.IGNORECASE,
)


class ImError(Exception):
    """A call has failed; the message contains the server's own error message and the fix.

    `code` is the HTTP status, None without an answer. With `outcome_unknown` the server may have carried out the call,
    with `unavailable` it may answer later.
    """

    def __init__(self, message, code=None, outcome_unknown=False, unavailable=False):
        super().__init__(message)
        self.code = code
        self.outcome_unknown = outcome_unknown
        self.unavailable = unavailable

    @property
    def transient(self):
        """Whether a retry may succeed."""
        return self.outcome_unknown or self.code is None


class NotFound(ImError):
    """The infrastructure or VM does not exist."""


def _creation_time(infrastructure):
    """Return a key that sorts ids by their time of creation, which is part of a version 1 UUID."""
    try:
        identifier = uuid.UUID(infrastructure)
    except ValueError:
        return 0, infrastructure
    return identifier.time if identifier.version == 1 else 0, infrastructure


def authorization(entries):
    """Return the value of the Authorization header for a list of dictionaries; raise ImError when it is incomplete, or a header cannot contain it."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImError("auth must be a list of dictionaries, one for the Infrastructure Manager and one for each cloud")
    for number, entry in enumerate(entries, 1):
        if not entry.get("type"):
            raise ImError(f"entry {number} of auth has no type: add one, such as InfrastructureManager or OpenStack")
    if len(entries) == 1 and entries[0]["type"] == "Bearer" and re.fullmatch(r"[!-~]+", str(entries[0].get("token"))):
        return f"Bearer {entries[0]['token']}"
    manager = [entry for entry in entries if entry["type"] == "InfrastructureManager"]
    if not any(entry.get("token") or (entry.get("username") and entry.get("password")) for entry in manager):
        raise ImError("auth has no entry of type InfrastructureManager with username and password, or with a token: add one")
    lines = (_with_google_key(entry).items() for entry in entries)
    return "\\n".join("; ".join(f"{key} = {_quoted(key, str(value))}" for key, value in line if value is not None) for line in lines)


def _quoted(key, value):
    """Return a value in the form that the server's parser reads, which strips blanks and has no escape for quotes."""
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ImError(f"{key} in auth has characters beyond Latin-1, which an HTTP header cannot contain: use another value") from None
    if "\\n" in value:
        raise ImError(f"{key} in auth has a backslash before an n, which the Infrastructure Manager reads as a line break: use another value")
    lines = value.replace("\r\n", "\n").strip("\n")
    if lines != lines.strip():
        raise ImError(f"{key} in auth begins or ends with a blank, which the Infrastructure Manager strips: use another value")
    if re.search(r"[;='\"]", lines):
        # Adjacent pieces in different quotes are one value.
        lines = "".join(f"'{piece}'" if '"' in piece else f'"{piece}"' for piece in re.findall(r'"+|[^"]+', lines))
    return lines.replace("\n", "\\\\n")


def parse_auth_file(text):
    """Return the entries of an auth file of the Infrastructure Manager: lines of `key = value; …`, JSON, or `Bearer TOKEN`.

    As in its client, a value `command(PROGRAM ARGUMENTS)` is replaced by the output of the program, and `file(PATH)` by the content of the file.
    """
    try:
        entries = json.loads(text)
    except ValueError:
        entries = None
    if isinstance(entries, list):
        where = "entry {} of the auth file"
        entries = [
            {key: _value(str(value), where.format(number)) for key, value in entry.items() if value is not None} if isinstance(entry, dict) else entry
            for number, entry in enumerate(entries, 1)
        ]
    else:
        entries = [_line(line.strip(), f"line {number} of the auth file") for number, line in enumerate(text.splitlines(), 1)]
        entries = [entry for entry in entries if entry]
    return entries


def _line(line, where):
    """Return the entry of a line, empty for a comment."""
    entry = {}
    if line.startswith("Bearer "):
        return {"type": "Bearer", "token": _value("".join(_split(line.removeprefix("Bearer ").strip(), None)), where)}
    for part in _split(line, ";") if not line.startswith("#") else ():
        if not part.strip():
            continue
        key, separator, value = part.partition("=")
        if not separator:
            raise ImError(f"{where} has '{key.strip()[:12]}…' without a value: write 'key = value', and quote a value that contains ;")
        # A line break has one backslash in a file for the client, and two in one for the server.
        value = re.sub(r"\\{1,2}n", "\n", "".join(_split(value.strip(), None)))
        entry[key.strip()] = _value(value, where)
    if entry and "type" not in entry:
        raise ImError(f"{where} has no type: add 'type = …', such as InfrastructureManager or OpenStack")
    return entry


def _split(text, separator):
    """Return the parts of a text between separators outside of quotes; without a separator, its only part without its quotes."""
    parts, part, quote_character = [], "", None
    for character in text:
        if character in "'\"" and quote_character in (None, character):
            quote_character = character if quote_character is None else None
            part += character if separator else ""
        elif character == separator and quote_character is None:
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part]


def _value(value, where):
    """Return a value; for `file(PATH)` the content of the file, for `command(PROGRAM ARGUMENTS)` the output of the program."""
    match = re.fullmatch(r"(file|command)\((.*)\)", value)
    if not match:
        return value
    if match[1] == "command":
        return _output(match[2].split(), where)
    try:
        with open(os.path.expanduser(match[2]), encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ImError(f"{where} names {match[2]}, which cannot be read: {error}") from None


def _output(command, where):
    """Return the output of a program. It is a secret, so that no message contains it."""
    if not command:
        raise ImError(f"{where} has an empty command(): write it as command(PROGRAM ARGUMENTS)")
    what = f"the command {command[0]} in {where}"
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ImError(f"{what} did not end within {_COMMAND_SECONDS} s: make sure that it asks for no input") from None
    except (OSError, ValueError) as error:
        raise ImError(f"{what} cannot be run ({type(error).__name__}): install it, or write its absolute path") from None
    output = done.stdout.replace("\n", "").strip()
    if done.returncode or not output:
        how = f"failed with status {done.returncode}" if done.returncode else "wrote nothing"
        raise ImError(f"{what} {how}: {' '.join(done.stderr.split())[:_COMMAND_ERROR_LENGTH] or 'run it in a terminal to see why'}")
    return output


def _with_google_key(entry):
    """Return an entry with the private key in place of Google Cloud's JSON key file, which the server cannot read."""
    if entry.get("type") != "GCE":
        return entry
    try:
        file = json.loads(str(entry["password"]))
        key = file["private_key"]
    except (ValueError, TypeError, KeyError):
        return entry
    defaults = {"username": file.get("client_email"), "project": file.get("project_id")}
    return {**{name: value for name, value in defaults.items() if value}, **entry, "password": key}


def client(options, warn=None):
    """Return an Im for the options url, auth, auth_file, validate_certs, ca_path, timeout and unavailable_timeout.

    Without auth and auth_file the authorization is the environment variable IM_AUTH, a text in the format of an auth file.
    `warn` is called with a warning when other users can read the auth file.
    """
    url = options.get("url")
    if not url or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ImError(f"url is '{url or ''}': set it (or IM_URL in the environment) to the Infrastructure Manager's REST address, https://HOST:8800")
    seconds = {"timeout": options.get("timeout") or 30, "unavailable_timeout": options.get("unavailable_timeout") or 0}
    return Im(url, functools.partial(_entries, options, warn), options.get("validate_certs", True), options.get("ca_path"), **seconds)


def _entries(options, warn):
    """Return the entries of the authorization, from the options or the environment."""
    if options.get("auth"):
        return options["auth"]
    if options.get("auth_file"):
        return parse_auth_file(_read_auth_file(options["auth_file"], warn))
    if os.environ.get("IM_AUTH"):
        return parse_auth_file(os.environ["IM_AUTH"])
    raise ImError("there is no authorization: set auth, auth_file, or IM_AUTH_FILE or IM_AUTH in the environment")


def _read_auth_file(path, warn):
    path = os.path.expanduser(path)
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ImError(f"cannot read auth_file {path}: {error}") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and "command(" in text:
        raise ImError(f"other users can write to auth_file {path}, and thereby run commands as you: run chmod 600 on it")
    if warn and mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"other users can read auth_file {path}, which contains secrets: run chmod 600 on it")
    return text


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect, which would send the authorization to another server."""

    def redirect_request(self, *arguments):
        return None


def _context(ca_path, validate_certs):
    try:
        return make_context(cafile=ca_path, validate_certs=validate_certs)
    except OSError as error:
        raise ImError(f"cannot use ca_path {ca_path} ({error}): set it to a PEM file with certificates") from None


class Im:
    """Client of one Infrastructure Manager, as one user. A call has a timeout of `timeout` seconds, and raises ImError.

    `entries` are those of the authorization, or a function that returns them. The function is called again when the server has refused them, since
    a token is valid for an hour. After the server's first answer a call that only reads is retried for `unavailable_timeout` seconds.
    """

    # Seconds that a controller has to destroy its duplicate of an infrastructure before other controllers do.
    agree_seconds = 15

    def __init__(self, url, entries, validate_certs=True, ca_path=None, timeout=30, unavailable_timeout=0):
        self.url = url.rstrip("/")
        self._source = entries if callable(entries) else None
        # One opener for all calls: open_url() loads the certificate authorities for each call, which takes longer than the call.
        self._opener = build_opener(HTTPSHandler(context=_context(ca_path, validate_certs)), _NoRedirect())
        self._timeout = timeout
        self.unavailable_timeout = unavailable_timeout
        self._answered = False
        self.secrets, self.public_values = set(), set()
        self._authorize(self._source() if self._source else entries)

    def _authorize(self, entries):
        """Set the header and the secrets from the entries of an authorization."""
        self._header = authorization(entries)
        values = [(key, str(value).strip()) for entry in map(_with_google_key, entries) for key, value in entry.items() if value]
        self.hide(value for key, value in values if key not in _PUBLIC_KEYS)
        self.public_values = {value for key, value in values} - self.secrets

    def _renewed(self, header):
        """Read the authorization again; return whether the header has changed."""
        if not self._source:
            return False
        self._authorize(self._source())
        return self._header != header

    def infrastructures(self):
        """Return the ids of all infrastructures of this user."""
        return self._uris("GET", "/infrastructures")

    def create(self, text, media_type=RADL):
        """Create an infrastructure asynchronously; return its id."""
        return _last(self._value("uri", str, "POST", "/infrastructures", text, media_type, **{"async": "true"}))

    def estimate(self, text, media_type=RADL):
        """Return the resources that an infrastructure would need, by cloud. Nothing is created."""
        return self._json("POST", "/infrastructures", text, media_type, dry_run="true")

    def state(self, infrastructure):
        """Return `state`, and `vm_states` by VM id."""
        state = self._value("state", dict, "GET", f"/infrastructures/{quote(infrastructure)}/state")
        return {"state": str(state.get("state")), "vm_states": state.get("vm_states") or {}}

    def contmsg(self, infrastructure):
        """Return the log of the contextualization."""
        return self._value("contmsg", (str, type(None)), "GET", f"/infrastructures/{quote(infrastructure)}/contmsg") or ""

    def radl(self, infrastructure):
        """Return the infrastructure's RADL."""
        return self._value("radl", str, "GET", f"/infrastructures/{quote(infrastructure)}/radl")

    def outputs(self, infrastructure):
        """Return the outputs of an infrastructure from a TOSCA document, {} for one from a RADL."""
        try:
            return self._value("outputs", dict, "GET", f"/infrastructures/{quote(infrastructure)}/outputs")
        except ImError as error:
            if error.code == 403:
                return {}
            raise

    def vms(self, infrastructure):
        """Return the ids of the VMs, oldest first."""
        return sorted(self._uris("GET", f"/infrastructures/{quote(infrastructure)}"), key=_number)

    def vm(self, infrastructure, vm):
        """Return a VM as describe_vm() does."""
        return describe_vm(vm, self.vm_classes(infrastructure, vm))

    def all_vms(self, infrastructure):
        """Return all VMs as describe_vm() does, oldest first, without those that are removed meanwhile."""
        found = []
        for vm in self.vms(infrastructure):
            with contextlib.suppress(NotFound):
                found.append(self.vm(infrastructure, vm))
        return found

    def vm_classes(self, infrastructure, vm):
        """Return the systems and networks of a VM's RADL."""
        return self._value("radl", list, "GET", f"/infrastructures/{quote(infrastructure)}/vms/{quote(vm)}")

    def name(self, infrastructure):
        """Return the name in the infrastructure's RADL, or None."""
        return radl_name(self.radl(infrastructure))

    def find(self, name, complete=False, deleting=False):
        """Return the ids of the infrastructures with a name, oldest first: those that are being deleted, or the others.

        Waits until new infrastructures have a name while none of this name is found, and with `complete` in any case.
        """
        found, unread = [], self.infrastructures()
        for pause in _NAME_PAUSES:
            unnamed = []
            for infrastructure in unread:
                # It may have been destroyed since it was listed.
                with contextlib.suppress(NotFound):
                    text = self.radl(infrastructure)
                    if not text.strip():
                        unnamed.append(infrastructure)
                    elif radl_name(text) == name and (self.state(infrastructure)["state"] == "deleting") == deleting:
                        found.append(infrastructure)
            if found and not complete or not unnamed:
                break
            unread = unnamed
            time.sleep(pause)
        return sorted(found, key=_creation_time)

    def find_one(self, name):
        """Return the id of the infrastructure with a name, or None. Raises ImError when several continue to exist."""
        end = time.monotonic() + 2 * self.agree_seconds
        while True:
            found = self.find(name)
            if len(found) <= 1:
                return found[0] if found else None
            if time.monotonic() >= end:
                raise ImError(f"{len(found)} infrastructures are named {name}: {', '.join(found)}. Select one with infrastructure_id")
            time.sleep(self.agree_seconds / 10)

    def unfinished(self, infrastructures):
        """Return those with neither RADL nor VMs: new ones for a moment, and those whose creation was interrupted by the end of the server."""
        unfinished = []
        for infrastructure in infrastructures:
            with contextlib.suppress(NotFound):
                state = self.state(infrastructure)
                if state["state"] == "pending" and not state["vm_states"] and not self.radl(infrastructure).strip():
                    unfinished.append(infrastructure)
        return unfinished

    def vm_creation(self, infrastructure):
        """Return the VMs, whether some are being created, and the orphaned ones: those whose creation was interrupted by the end of the server.

        After a restart the server has them from its database, where a VM counts as failed until it is configured.
        """
        try:
            found = json.loads(self._value("data", str, "GET", f"/infrastructures/{quote(infrastructure)}/data"))["vm_list"]
        except (ValueError, KeyError, TypeError):
            raise ImError(self._foreign("its answer has no list of VMs")) from None
        # On some clouds a VM counts as destroyed until the cloud has accepted the request.
        creating = any(vm.get("creating") and vm.get("configured") is None for vm in found)
        vms = {str(vm.get("im_id")): vm for vm in found if not vm.get("destroy")}
        return list(vms), creating, [identifier for identifier, vm in vms.items() if vm.get("creating") and vm.get("configured") is False]

    def add(self, infrastructure, text, media_type=RADL):
        """Add the VMs that a RADL deploys; return their ids."""
        return self._uris("POST", f"/infrastructures/{quote(infrastructure)}", text, media_type)

    def remove_vms(self, infrastructure, vms, context=True):
        """Remove VMs; with `context` the other VMs are configured again."""
        self._call("DELETE", f"/infrastructures/{quote(infrastructure)}/vms/{','.join(map(quote, vms))}", context=str(context).lower())

    def reconfigure(self, infrastructure, text="", vms=()):
        """Configure all VMs or the named ones again, with a changed RADL if one is given."""
        parameters = {"vm_list": ",".join(vms)} if vms else {}
        self._call("PUT", f"/infrastructures/{quote(infrastructure)}/reconfigure", text, **parameters)

    def operate(self, infrastructure, operation, vm=None):
        """Start or stop an infrastructure, or start, stop or reboot one VM."""
        path = f"/vms/{quote(vm)}" if vm is not None else ""
        self._call("PUT", f"/infrastructures/{quote(infrastructure)}{path}/{operation}")

    def resize(self, infrastructure, vm, text):
        """Resize a VM to the sizes of a RADL system."""
        self._call("PUT", f"/infrastructures/{quote(infrastructure)}/vms/{quote(vm)}", text)

    def destroy(self, infrastructure, force=False):
        """Request the deletion of an infrastructure; with `force` even if VMs cannot be removed."""
        self._call("DELETE", f"/infrastructures/{quote(infrastructure)}", **{"async": "true", "force": str(force).lower()})

    def hide(self, secrets):
        """Mask these secrets, as those of the authorization, in messages and by scrub()."""
        self.secrets.update(form for secret in secrets for form in _forms(secret))

    def scrub(self, text):
        """Return a text with its secrets masked."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            if len(secret) >= _SECRET_LENGTH:
                text = text.replace(secret, "********")
        return text

    def _uris(self, method, path, body=None, media_type=RADL):
        """Return the ids at the ends of the URIs in an answer."""
        items = self._value("uri-list", list, method, path, body, media_type)
        if not all(isinstance(item, dict) and isinstance(item.get("uri"), str) for item in items):
            raise ImError(self._foreign("a URI is missing"), outcome_unknown=method != "GET")
        return [_last(item["uri"]) for item in items]

    def _value(self, key, kind, method, path, body=None, media_type=RADL, **parameters):
        """Return the value of a key of an answer."""
        value = self._json(method, path, body, media_type, **parameters).get(key)
        if not isinstance(value, kind):
            raise ImError(self._foreign(f"its answer has no {key}"), outcome_unknown=method != "GET")
        return value

    def _json(self, method, path, body=None, media_type=RADL, **parameters):
        answer = self._call(method, path, body, media_type, **parameters)
        try:
            document = json.loads(answer)
        except ValueError:
            # Without a readable answer to a POST its outcome is unknown.
            raise ImError(self._foreign("its answer is no JSON"), outcome_unknown=method != "GET") from None
        if not isinstance(document, dict):
            raise ImError(self._foreign("its answer is no JSON object"), outcome_unknown=method != "GET")
        return document

    def _call(self, method, path, body=None, media_type=RADL, **parameters):
        query = f"?{urlencode(parameters)}" if parameters else ""
        headers = {"Accept": "application/json", "User-Agent": "deeptrain.cluster"}
        if body is not None:
            headers["Content-Type"] = media_type
        data = body.encode() if body is not None else None
        end, pause, renewed = time.monotonic() + self.unavailable_timeout, _FIRST_PAUSE, False
        while True:
            header = self._header
            request = Request(f"{self.url}{path}{query}", data, {**headers, "Authorization": header}, method=method)
            try:
                return self._send(request, method, path)
            except ImError as error:
                # A refused call was not carried out, so that any method can be retried.
                if error.code == 401 and not renewed and self._renewed(header):
                    renewed = True
                    continue
                if not (error.unavailable and method == "GET" and self._answered) or time.monotonic() >= end:
                    raise
            time.sleep(pause)
            pause = min(1.5 * pause, _MAX_PAUSE)

    def _send(self, request, method, path):
        """Return the text of the answer to one request."""
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                text = answer.read().decode("utf-8", "replace")
            self._answered = True
            return text
        except HTTPError as error:
            raise self._refusal(method, path, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(method, error) from None

    def _refusal(self, method, path, error):
        """Return the ImError for an HTTP error."""
        if 300 <= error.code < 400:
            return ImError(f"{self.url} redirects to {error.headers.get('Location')}: set url to the Infrastructure Manager's own address", error.code)
        try:
            reason = self.scrub(_error_message(error.read().decode("utf-8", "replace")))
        except (OSError, http.client.HTTPException):
            reason = "its message was cut off"
        message = f"{self.url} answers {method} {path} with {error.code}: {reason.rstrip('. ')}.{_fix(error.code)}"
        # After a server error the call may still be carried out.
        outcome_unknown = error.code >= 500
        return (NotFound if error.code == 404 else ImError)(message, error.code, outcome_unknown, unavailable=error.code in _UNAVAILABLE)

    def _unreachable(self, method, error):
        """Return the ImError for a call without a complete answer."""
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            message = f"cannot trust {self.url} ({reason}): set ca_path to the authority that signed its certificate"
            return ImError(self.scrub(message))
        # These calls have not reached a server.
        refused = isinstance(error, URLError) and isinstance(reason, (ConnectionRefusedError, socket.gaierror))
        message = f"no answer from {self.url} to {method} ({reason or type(error).__name__}): make sure that the Infrastructure Manager runs there"
        return ImError(self.scrub(message), outcome_unknown=not refused, unavailable=True)

    def _foreign(self, what):
        return f"{self.url} does not answer as an Infrastructure Manager ({what}): set url to its REST address, https://HOST:8800"


def _error_message(text):
    """Return the message in the body of an error, whichever of the server's forms it has."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("message"), str):
        # An error in a TOSCA document comes with 20 KiB of the server's call stack, indented twice.
        lines = [line for line in document["message"].splitlines() if not line.startswith("\t\t")]
        return " ".join(" ".join(lines).split())[:_MESSAGE_LENGTH]
    if isinstance(document, dict) and isinstance(document.get("detail"), str):
        return document["detail"]
    if isinstance(document, dict) and isinstance(document.get("detail"), list):
        # Without the item's `input`, which can contain secrets.
        items = [item for item in document["detail"] if isinstance(item, dict)]
        return "; ".join(f"{'.'.join(map(str, item.get('loc', [])))}: {item.get('msg')}" for item in items)
    if re.match(r"\s*<", text):
        return "(a web page, not a message of the Infrastructure Manager)"
    return " ".join(text.split())[:_MESSAGE_LENGTH] or "(no message)"


def _fix(code):
    fixes = {
        401: " See the entry of type InfrastructureManager in auth.",
        403: " It belongs to another user: use the auth that created it.",
        404: " It does not exist, or no longer: see the list of infrastructures.",
        409: " Wait until the running operation has ended, and retry.",
        504: " It may still be carried out: see its state later.",
    }
    return fixes.get(code, "")


def _forms(secret):
    """Return the forms of a secret that a message can contain: as it is, escaped, and the single lines of a key."""
    forms = {secret, secret.replace("\n", "\\n"), secret.replace("\n", "\\\\n")}
    if "\n" in secret:
        lines = (line.strip() for line in secret.splitlines())
        forms.update(line for line in lines if len(line) >= 2 * _SECRET_LENGTH and not line.startswith("-----"))
    return forms


def _last(uri):
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _number(vm):
    return (int(vm), vm) if vm.isdigit() else (0, vm)


def _bare(text, kept=""):
    """Return a RADL with blanks in place of its strings, comments and playbooks, except for those that begin with the character `kept`."""
    return _QUOTED.sub(lambda match: match[0] if match[0][0] == kept else " " * len(match[0]), text)


def radl_name(text):
    """Return the name in a RADL's `description`, which is its feature `name`, or else its id. None without a description."""
    match = _DESCRIPTION.search(_bare(text))
    if not match:
        return None
    feature = _NAME_FEATURE.search(text[slice(*match.span("features"))]) if match["features"] else None
    return feature[1] if feature else match["id"]


def radl_counts(text):
    """Return the number of VMs of each system that a RADL deploys."""
    counts = {}
    for match in _DEPLOY.finditer(_bare(text)):
        counts[match["system"]] = counts.get(match["system"], 0) + int(match["count"])
    return counts


def radl_public_systems(text):
    """Return the systems of a RADL that have an interface in a public network."""
    public, connections = set(), {}
    bare, strings = _bare(text), _bare(text, kept="'")
    for block in _BLOCK.finditer(bare):
        following = _BLOCK.search(bare, block.end())
        features = strings[block.end() : following.start() if following else len(text)]
        if block["kind"] == "system":
            connections[block["id"]] = set(_CONNECTION.findall(features))
        elif _OUTBOUND.search(features):
            public.add(block["id"])
    return {system for system, networks in connections.items() if networks & public}


def radl_deploying(text, counts):
    """Return a RADL that deploys other numbers of VMs of its systems, in the same clouds."""
    clouds, rest, end = {}, "", 0
    for match in _DEPLOY.finditer(_bare(text)):
        clouds[match["system"]] = match["cloud"]
        rest, end = rest + text[end : match.start()], match.end()
    lines = [" ".join(filter(None, ("deploy", system, str(count), clouds.get(system)))) for system, count in counts.items() if count]
    return "\n".join([(rest + text[end:]).rstrip(), *lines, ""])


def radl_positions(text, message):
    """Return a message of the RADL parser with the line and column of each token that it does not understand."""

    def describe(match):
        position = int(match["position"])
        return f"{match['value']} in line {match['line']}, column {position - text.rfind(chr(10), 0, position)}"

    return re.sub(r"LexToken\(\w+,(?P<value>.*?),(?P<line>[0-9]+),(?P<position>[0-9]+)\)", describe, message)


def radl_fits(text, classes):
    """Return whether a VM with these classes already has the sizes of a RADL system."""
    system = next((item for item in classes if item.get("class") == "system"), {})
    for match in _FEATURE.finditer(text):
        size = system.get(match["key"])
        if match["number"] is None or not isinstance(size, (int, float)):
            fits = match["operator"] == "=" and size is not None and str(size) == (match["word"] or match["number"])
        else:
            unit = (match["unit"] or "").lower()
            wanted = float(match["number"]) * (1024 if "i" in unit else 1000) ** ("kmgt".index(unit[0]) + 1 if unit else 0)
            fits = {"=": size == wanted, ">=": size >= wanted, "<=": size <= wanted, ">": size > wanted, "<": size < wanted}[match["operator"]]
        if not fits:
            return False
    return True


def radl_secrets(text):
    """Return the values of the keys in a RADL or TOSCA document that are named as secrets."""
    values = {match["value"] for match in _SECRET.finditer(text)}
    # In braces an unquoted value ends at one of these.
    values |= {re.split(r"[,}\]]", value)[0] for value in values if value[0] not in "'\""}
    values = {value.strip("'\"").replace("\\'", "'") for value in values}
    return {value for value in values if value.lower() not in ("", "true", "false", "null", "none")}


def radl_masked(text):
    """Return a RADL with its secrets masked."""
    return _SECRET.sub(lambda match: f"{match['key']}'********'", text)


def describe_vm(vm, classes):
    """Return a VM from the classes of its RADL; None for missing values."""
    system = next((item for item in classes if item.get("class") == "system"), {})
    networks = {item.get("id"): item for item in classes if item.get("class") == "network"}
    private, public, used = None, None, []
    number = 0
    while f"net_interface.{number}.connection" in system or f"net_interface.{number}.ip" in system:
        address = system.get(f"net_interface.{number}.ip")
        network = networks.get(system.get(f"net_interface.{number}.connection"), {})
        if network.get("outbound") == "yes" or (not network and address and not _is_private(address)):
            public = public or address
            used.append(network)
        else:
            private = private or address
        number += 1
    others = [network for network in networks.values() if network.get("outbound") == "yes" and network not in used]
    credentials = "disk.0.os.credentials."
    return {
        "id": vm,
        "system": system.get("id"),
        "state": system.get("state"),
        "hostname": system.get("net_interface.0.dns_name"),
        "private_ip": private,
        "public_ip": public,
        "ssh_port": _ssh_port([*others, *used]) if public else 22,
        "user": system.get(f"{credentials}new.username") or system.get(f"{credentials}username"),
        "password": system.get(f"{credentials}new.password") or system.get(f"{credentials}password"),
        "private_key": system.get(f"{credentials}new.private_key") or system.get(f"{credentials}private_key"),
    }


def _is_private(address):
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return True


def _ssh_port(networks):
    """Return the outer port of the last outport that leads to port 22: `OUTER/tcp-22/tcp`, optionally after `NETWORK/BITS-`."""
    port = 22
    for item in (item for network in networks for item in re.split(r"[,\s]+", network.get("outports") or "")):
        match = re.fullmatch(r"(?:[0-9.]+/[0-9]+-)?(?:([0-9]+)(?:/tcp)?-)?22(?:/tcp)?", item)
        if match:
            port = int(match[1] or 22)
    return port

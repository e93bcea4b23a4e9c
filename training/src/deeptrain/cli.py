# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``deeptrain``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from deeptrain import job, kinds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deeptrain", description="What runs on the nodes of a deeptrain.cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for kind, (_function, text) in kinds.KINDS.items():
        command = commands.add_parser(kind, help=text)
        command.add_argument("--job", required=True, metavar="DIRECTORY", help="the job's directory, with its config.json")
    serve = commands.add_parser("serve", help="run the training command of a parameter server or a worker")
    serve.add_argument("--config", required=True, metavar="FILE", help="the server's configuration")
    autostop = commands.add_parser("autostop", help="renew the lease of this machine and share it with the other nodes")
    autostop.add_argument("--config", required=True, metavar="FILE", help="role autostop's configuration")
    autostop.add_argument("--end", action="store_true", help="the lease has expired: export models and checkpoints, and power off")
    autostop.add_argument("--check", action="store_true", help="check the access to the Infrastructure Manager")
    unexported = commands.add_parser("unexported", help="list the runs that would be lost with the machines")
    unexported.add_argument("--state-dir", required=True, metavar="DIRECTORY", help="the directory of the runs")
    unexported.add_argument("--hdfs-url", required=True, metavar="URL", help="the job user's directory in HDFS")
    unexported.add_argument("--user", required=True, help="the job's user")
    options = parser.parse_args(arguments)
    if options.command == "autostop":
        return importlib.import_module("deeptrain.autostop").main(options.config, options.end, options.check)
    if options.command == "unexported":
        return importlib.import_module("deeptrain.autostop").unexported(options.state_dir, options.hdfs_url, options.user)
    if options.command == "serve":
        return importlib.import_module("deeptrain.serve").main(options.config)
    function, _text = kinds.KINDS[options.command]
    return job.run(options.job, pkgutil.resolve_name(function))


if __name__ == "__main__":
    sys.exit(main())

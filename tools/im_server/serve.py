# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the Infrastructure Manager on a port of this machine, with a database of its own, to try it or to test with it.

It needs the packages in requirements.txt, runs until it is interrupted, and knows its infrastructures again when
it is started again on the same directory. Any username and password is accepted, and marks who owns what.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# What a test need not wait for.
QUICK = {
    "PLAYBOOK_RETRIES": 1,
    "CHECK_CTXT_PROCESS_INTERVAL": 2,
    "UPDATE_CTXT_LOG_INTERVAL": 5,
    "CONFMAMAGER_CHECK_STATE_INTERVAL": 2,
    "WAIT_SSH_ACCCESS_TIMEOUT": 60,
    "VM_INFO_UPDATE_FREQUENCY": 1,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="where its database and its log are, or will be")
    parser.add_argument("--address", default="127.0.0.1", help="whoever reaches it can use it (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8800)
    parser.add_argument("--quick", action="store_true", help="look more often and give up sooner, for tests")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    directory = options.directory.resolve()
    # The database holds the clouds' credentials.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.umask(0o077)
    # It leaves a cache of TOSCA types where it runs.
    os.chdir(directory)
    # Its Ansible meets each machine for the first time.
    os.environ.setdefault("ANSIBLE_HOST_KEY_CHECKING", "False")

    from IM.config import Config

    Config.REST_ADDRESS = options.address
    Config.REST_PORT = options.port
    Config.DATA_DB = f"sqlite:///{directory}/im.db"
    Config.LOG_FILE = str(directory / "im.log")
    for name, value in QUICK.items() if options.quick else ():
        if not hasattr(Config, name):
            raise SystemExit(f"this Infrastructure Manager has no setting {name}: install the version in requirements.txt")
        setattr(Config, name, value)

    # It reads its settings while it is imported.
    from IM import im_service

    # It looks at the command line too.
    sys.argv = ["im_service"]
    print(f"The Infrastructure Manager listens on http://{options.address}:{options.port}", flush=True)
    im_service.main()


if __name__ == "__main__":
    main()

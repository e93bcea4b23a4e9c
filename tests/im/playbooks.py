# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the files that the Infrastructure Manager makes of a RADL's configure blocks: playbooks.py RADL DIRECTORY.

As IM.ConfManager does it: each block under its name, and the blocks of the steps as plays with its own header.
"""

from __future__ import annotations

import sys
from pathlib import Path

from IM.ansible_utils import merge_recipes
from IM.ConfManager import ConfManager
from radl.radl_parse import parse_radl


def main(file: Path, directory: Path) -> None:
    radl = parse_radl(file.read_text())
    for block in radl.configures:
        (directory / f"{block.name}.yml").write_text(block.recipes)
    for item in radl.contextualize.items.values():
        play = merge_recipes(ConfManager.add_ansible_header("linux"), radl.get_configure_by_name(item.configure).recipes)
        (directory / f"{item.configure}_{item.system}_task.yml").write_text(play)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

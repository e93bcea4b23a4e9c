# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that use the NameNode, as _webhdfs.NAMENODE."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments."""

    DOCUMENTATION = r"""
options:
  namenode_url:
    description: HTTP address of the NameNode, C(http://HOST:9870).
    type: str
    required: true
  user:
    description:
      - HDFS user that the module acts as. The default is the superuser, which is the user that the NameNode runs as.
      - Only the superuser can set owners and list lost blocks.
    type: str
    default: hdfs
"""

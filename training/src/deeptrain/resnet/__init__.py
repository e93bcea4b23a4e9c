# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The default training command: a ResNet for small images with asynchronous parameter servers.

It acts by the task's type in TF_CONFIG, and trains in a single process without it.
"""

#!/bin/sh
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Print the path of a Python that the newest ansible-core runs on, 3.12 or later; nothing if there is none.
for version in 3.14 3.13 3.12; do
    # pyenv's own python3.N works only for a version that is active.
    installed=$(pyenv versions --bare 2>/dev/null | grep "^$version\." | tail -n 1)
    for python in "python$version" ${installed:+"$(pyenv prefix "$installed")/bin/python"}; do
        "$python" -c 'import ensurepip, sys; print(sys.executable)' 2>/dev/null && exit
    done
done

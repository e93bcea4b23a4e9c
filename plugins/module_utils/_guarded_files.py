# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written atomically, and how root works in directories that another user writes to.

There every directory is opened below its parent's handle and no link is followed, so that user cannot lead root elsewhere by
exchanging one; files are read only when they are regular ones of a limited size, so a FIFO or a huge file stops nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

READ_BYTES = 4 * 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _open_below(handle, name):
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        path = os.path.join(os.readlink(f"/proc/self/fd/{handle}"), name)
        raise NotADirectoryError(f"{path} is a link or a file where a directory is needed: remove it") from error


@contextlib.contextmanager
def directory(path, *names):
    """Open the directory ``path/names…``, of which root owns ``path`` alone for sure."""
    handle = os.open(path, _DIRECTORY)
    try:
        for name in names:
            below = _open_below(handle, name)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def trusted(handle, name):
    """Open a directory below another; a link is followed where only root could have created or replaced it."""
    status = os.stat(name, dir_fd=handle, follow_symlinks=False)
    roots = stat.S_ISLNK(status.st_mode) and status.st_uid == os.fstat(handle).st_uid == 0
    below = os.open(name, _DIRECTORY, dir_fd=handle) if roots else _open_below(handle, name)
    try:
        yield below
    finally:
        os.close(below)


@contextlib.contextmanager
def untrusted(handle, name):
    """Open a directory below another; no link is followed."""
    below = _open_below(handle, name)
    try:
        yield below
    finally:
        os.close(below)


def own(handle, mode, uid=0, gid=0):
    """Give an open directory its mode and owner."""
    os.fchmod(handle, mode)
    os.fchown(handle, uid, gid)


def make_directory(handle, name, mode, uid=0, gid=0):
    """Create a directory where none exists, and give it mode and owner."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=handle)
    own_directory(handle, name, mode, uid, gid)


def own_directory(handle, name, mode, uid=0, gid=0):
    """Give an existing directory its mode and owner."""
    below = _open_below(handle, name)
    try:
        own(below, mode, uid, gid)
    finally:
        os.close(below)


def open_regular(handle, name):
    """Open a regular file for reading; None where there is none, or something else under its name."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except OSError as error:
        # A link, a socket.
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return None
    return os.fdopen(file, "rb")


def read(handle, name):
    """Return a regular file's content; None where there is none, or one that is too large."""
    file = open_regular(handle, name)
    if file is None:
        return None
    with file:
        content = file.read(READ_BYTES + 1)
    return content if len(content) <= READ_BYTES else None


def write(handle, name, text, mode, owner=(0, 0), durable=False):
    """Replace or create a file atomically: a reader sees the old content or the new, never a wider mode.

    The owner is a uid and a gid, by default root's, or None for this process's. A durable file is on the disk before it has its name.
    """
    temporary = f".{name}.{secrets.token_hex(8)}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=handle)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(text)
            if owner is not None:
                os.fchown(file, *owner)
            os.fchmod(file, mode)
            if durable:
                stream.flush()
                os.fsync(file)
        os.rename(temporary, name, src_dir_fd=handle, dst_dir_fd=handle)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=handle)
        raise


def write_own(path, text, mode=0o600, durable=False):
    """Replace or create a file of this process's user as write() does, in a directory of that user's."""
    with directory(os.path.dirname(path)) as handle:
        write(handle, os.path.basename(path), text, mode, owner=None, durable=durable)


def remove(handle, name):
    """Remove a file; nothing happens where there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=handle)

"""Unix socket files that a proxy which was killed left behind.

A socket file outlives its process, and nothing can listen on its path until
it is gone.  Twisted's lock file beside it names the owner by process id, which
fails in containers: there the killed process and its successor often have the
same one.  So the question is put to the socket itself.
"""

from __future__ import annotations

import os
import socket
import stat

__all__ = ["clear_stale_socket"]


def clear_stale_socket(path: str) -> bool:
    """Remove the socket file at *path*, and Twisted's lock, if nobody listens there.

    Never removes a file that is no socket, nor a socket that answers.

    :return: whether anything was removed, so that listening may work now.
    """
    try:
        if not _is_abandoned(path):
            return False
        lock = path + ".lock"
        return any([_remove(path), os.path.islink(lock) and _remove(lock)])
    except OSError:  # no right to look or to remove: whoever tries to listen is told
        return False


def _is_abandoned(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return True  # only the lock can be in the way
    if not stat.S_ISSOCK(mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose queue is full must not make us wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            return False
    return False


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True

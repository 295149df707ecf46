"""Which files of a folder this process opened, as the kernel says: independent of what a loader says of itself."""

import contextlib
import ctypes
import os
import struct
import sys

import pytest

_IN_OPEN, _IN_ISDIR = 0x20, 0x40000000
_EVENT = struct.Struct("iIII")


@contextlib.contextmanager
def opened_files(folder):
    """Yields a set that holds the paths of the regular files opened below `folder` once the block has ended."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells which files a process opens (inotify)")
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    watched, found = {}, set()
    try:
        for place, folders, _ in os.walk(folder, followlinks=True):
            number = libc.inotify_add_watch(handle, os.fsencode(place), _IN_OPEN)
            assert number >= 0, os.strerror(ctypes.get_errno())
            watched[number] = place
        yield found
        with contextlib.suppress(BlockingIOError):
            while True:
                events, start = os.read(handle, 1 << 20), 0
                while start < len(events):
                    number, mask, _, length = _EVENT.unpack_from(events, start)
                    name = events[start + _EVENT.size : start + _EVENT.size + length].rstrip(b"\0")
                    if name and not mask & _IN_ISDIR:
                        found.add(os.path.join(watched[number], os.fsdecode(name)))
                    start += _EVENT.size + length
    finally:
        os.close(handle)

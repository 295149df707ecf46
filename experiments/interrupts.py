"""Ctrl-C, SIGTERM and SIGHUP: the run ends with one line that says how to go on, and none of them is lost.

Python turns a signal into an exception wherever the program happens to be. Where that is a callback or a destructor the
exception is printed and dropped, and where a library catches everything it is swallowed. So the signal is remembered as
well, and `check`, which a run calls at every step of its progress and at its end, raises it again.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: list[int] = []


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end; `number` says which."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def received() -> int | None:
    """The first signal that asked to end, if there was one."""
    return _received[0] if _received else None


def check() -> None:
    """Raise `Interrupted` if a signal has asked to end, even if its exception was lost on the way."""
    if _received:
        raise Interrupted(_received[0])


def exit_status(number: int) -> int:
    """What a shell reports for a program that a signal ended: 128 and the signal's number."""
    return 128 + number


def _remember(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if len(_received) > 2:
        # Somebody insists: whatever keeps the exception from getting through is not waited for any longer.
        os._exit(exit_status(_received[0]))
    raise Interrupted(number)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Take the signals in the block; afterwards each ends the process at once, as there is nothing left to lose.

    A signal that was ignored when the program started, as nohup ignores SIGHUP, stays ignored.
    """
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    for number in taken:
        signal.signal(number, _remember)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)

"""Ctrl-C and SIGTERM wait for the end of a step, so that a checkpoint of it can be written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopBetweenSteps:
    """While it is entered, a first signal to stop is kept until :meth:`heed`; a second is not.

    Signals that the process ignores stay ignored, and outside the main thread, where Python lets
    no handler be set, nothing changes.
    """

    def __init__(self) -> None:
        self._former: dict[signal.Signals, Any] = {}
        self._kept: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal to stop has come."""
        return self._kept is not None

    def heed(self) -> None:
        """Does what the signal would have done when it came; nothing where none has."""
        number, self._kept = self._kept, None
        if number is not None:
            self._restore()
            signal.raise_signal(number)

    def __enter__(self) -> StopBetweenSteps:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                former = signal.getsignal(number)
                if former not in (None, signal.SIG_IGN):
                    self._former[number] = signal.signal(number, self._keep)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        self.heed()  # also where the step itself failed: what was asked for is not forgotten

    def _keep(self, number: int, frame: FrameType | None) -> None:
        first, self._kept = self._kept is None, signal.Signals(number)
        if not first:
            self.heed()

    def _restore(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former.clear()

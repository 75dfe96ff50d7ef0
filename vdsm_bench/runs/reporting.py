"""How running work tells the person in front of the screen; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives what happens while cells run. Answers do not go through here."""

    def say(self, text: str) -> None:
        """Says one line."""

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Moves the bar of a task.

        Args:
            task: its name; a new name opens a new bar.
            done: steps done.
            total: steps in all.
            detail: figures to show beside the bar.
        """


class Silent:
    """A reporter that says nothing."""

    def say(self, text: str) -> None:
        """Says nothing."""

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Shows nothing."""

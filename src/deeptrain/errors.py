"""The error of a user, whose message says what to type instead."""

from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
    """A user's mistakes, one line each. The command line prints them without a traceback and exits with 2.

    `valid_parts` holds the parts of the command that have no mistake so far.
    """

    def __init__(self, lines: Iterable[str], valid_parts: dict[str, Any] | None = None):
        self.lines, self.valid_parts = list(dict.fromkeys(lines)), valid_parts or {}
        super().__init__("\n".join(self.lines))

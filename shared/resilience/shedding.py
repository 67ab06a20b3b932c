"""How much is under way at once: what has no room is refused at once, never queued."""

from __future__ import annotations


class Load:
    """A count of what is under way, and its limit; None is no limit."""

    __slots__ = ("_limit", "under_way")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.under_way = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return self._limit is not None and self.under_way >= self._limit

    def enter(self) -> None:
        """One more; the caller has looked whether there is room."""
        self.under_way += 1

    def leave(self) -> None:
        """One less."""
        self.under_way -= 1

"""Telling those who watch a build that there is something new: its state, or lines in its log.

A feed says that something changed, not what: whoever watches reads the log file at their own place and pace. So a slow watcher costs nothing,
and a fast build wakes a hundred of them with one event.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from firebrick.server.record import Build


class Feed:
    """What there is to know about one build now. `build` is None until somebody has looked it up or changed it."""

    def __init__(self) -> None:
        self.build: Build | None = None
        self._change = asyncio.Event()

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, then nothing is missed between the look and the wait."""
        return self._change

    def seed(self, build: Build | None) -> None:
        """What the store has, unless something newer was published meanwhile."""
        if self.build is None:
            self.build = build

    def notify(self) -> None:
        """Wake all who wait for a change."""
        self._change.set()
        self._change = asyncio.Event()


class Feeds:
    """The feeds of all builds somebody watches. A feed lives as long as somebody holds it."""

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()

    def of(self, build_id: str) -> Feed:
        feed = self._feeds.get(build_id)
        if feed is None:
            feed = self._feeds[build_id] = Feed()
        return feed

    def publish(self, build: Build) -> None:
        """Tell that a build is in a new state."""
        feed = self._feeds.get(build.id)
        if feed is not None:
            feed.build = build
            feed.notify()

    def notify_all(self) -> None:
        """Wake everybody, to see that the server is closing."""
        for feed in list(self._feeds.values()):
            feed.notify()

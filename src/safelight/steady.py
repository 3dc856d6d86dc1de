"""Time that can be relied on: a clock that never jumps, and the age that data must have before it is deleted.

The wall clock may be wrong and may be put right at any moment. Leases therefore run on a clock that is read from the
wall clock once and then follows the monotonic one. Deleting needs more, since ages outlive the process: data is deleted
only if it was old enough at two looks that are a day of running time apart, and the wall clock has not leapt between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

log = logging.getLogger(__name__)

DAY = 86400.0
_TOLERATED = 60.0
"""Seconds by which the wall clock may be corrected without being doubted."""
_KEPT_EVERY = 600.0
"""Seconds of running time after which `Ages` is worth keeping again."""


class Clock:
    """What time it is, in seconds."""

    def __init__(self) -> None:
        self._anchor = time.time() - time.monotonic()

    def wall(self) -> float:
        """Return Unix time, for people. It may jump."""
        return time.time()

    def steady(self) -> float:
        """Return Unix time as if the wall clock had not been changed since the process started. It never jumps."""
        return self._anchor + time.monotonic()

    def running(self) -> float:
        """Return a time that only ever advances by what has passed, sleep of the machine included."""
        try:
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        except (AttributeError, OSError):  # not on every platform
            return time.monotonic()


class Look(msgspec.Struct, frozen=True):
    """A moment at which ages were judged: the time run by then, and the wall clock."""

    running: float
    wall: float


class _Kept(msgspec.Struct):
    """What outlives the process. `running` is the time that all processes together have run."""

    running: float = 0.0
    wall: float = 0.0
    looks: dict[str, Look] = {}
    confirmed: dict[str, float] = {}
    vouched: float = 0.0
    """The wall clock when a person said that it is right, unless it has leapt since; 0: nobody did."""
    confirmation: float = 0.0
    """Which confirmation that was, so that none counts twice."""


class Ages:
    """Says what is old enough to be deleted. Not for several threads at once.

    A wall clock that leaps is warned of, and all looks begin anew: nothing is deleted for a day (or for the time that
    the data is kept, if that is shorter) of running on a clock that does not leap.
    """

    def __init__(self, kept: bytes | str | None = None, *, clock: Clock | None = None) -> None:
        """Go on from what `kept` returned in an earlier process."""
        self._clock = clock or Clock()
        self._kept = _read(kept)
        self._running, self._wall = self._clock.running(), self._clock.wall()
        self._written = self._kept.running
        if self._kept.wall:
            self._judge_start(self._wall - self._kept.wall)

    def before(self, name: str, keep: float) -> float | None:
        """Return the time (Unix seconds) before which data of a kind is to be deleted; None where none may be.

        `keep` is how long it is kept, in seconds.
        """
        self._advance()
        span, kept = min(DAY, keep), self._kept
        if span <= 0:
            return self._wall - keep
        look = kept.looks.get(name)
        if look is None or kept.running - look.running >= span:
            if look is not None:
                kept.confirmed[name] = look.wall
            kept.looks[name] = Look(kept.running, self._wall)
        confirmed = max(kept.confirmed.get(name, 0.0), kept.vouched)
        return confirmed - keep if confirmed else None

    @property
    def confirmation(self) -> float:
        """The confirmation that counted last."""
        return self._kept.confirmation

    def confirm(self, confirmation: float) -> None:
        """Delete what is old by the clock of now, since a person has said that it is right. 0 says nothing.

        A `confirmation` counts once: after another leap it takes another one.
        """
        self._advance()
        if confirmation in (0.0, self._kept.confirmation):
            return
        log.warning("A person has confirmed the clock; what is old may be deleted")
        self._kept.confirmation, self._kept.vouched = confirmation, self._wall
        self._written = -_KEPT_EVERY

    def next_look(self, name: str, keep: float) -> float:
        """Return how many seconds from now `before` may return another time."""
        self._advance()
        look = self._kept.looks.get(name)
        return 0.0 if look is None else max(0.0, look.running + min(DAY, keep) - self._kept.running)

    def kept(self, *, due: bool = True) -> str | None:
        """Return what to keep for the next process; None, where it is not `due` yet."""
        self._advance()
        if due and self._kept.wall and self._kept.running - self._written < _KEPT_EVERY:
            return None
        self._written, self._kept.wall = self._kept.running, self._wall
        return msgspec.json.encode(self._kept).decode()

    def _advance(self) -> None:
        running, wall = self._clock.running(), self._clock.wall()
        passed = max(0.0, running - self._running)
        leap = wall - self._wall - passed
        self._running, self._wall = running, wall
        self._kept.running += passed
        if abs(leap) > _TOLERATED:
            self._doubt(f"The clock was set {_span(leap)}.")

    def _judge_start(self, gap: float) -> None:
        if gap < -_TOLERATED:
            self._doubt(f"The clock is {_span(gap)} compared with the last time that was written down.")
        elif gap > DAY and (self._kept.looks or self._kept.confirmed):
            self._doubt(f"The clock is {_span(gap)} since it was last written down; it may be wrong.")

    def _doubt(self, sentence: str) -> None:
        log.warning(
            "%s Nothing is deleted until a day has passed in which the clock is steady, or a person confirms it "
            "(safelight confirm-clock).",
            sentence,
        )
        self._kept.vouched = 0.0
        self._kept.looks.clear()
        self._kept.confirmed.clear()
        self._written = -_KEPT_EVERY  # to be kept at once


def _read(kept: bytes | str | None) -> _Kept:
    """Read what an earlier process kept; what cannot be read is as if nothing had been."""
    try:
        return msgspec.json.decode(kept or b"{}", type=_Kept)
    except msgspec.MsgspecError:
        return _Kept()


def _span(seconds: float) -> str:
    size = abs(seconds)
    text = f"{size / DAY:.1f} days" if size >= DAY else f"{size / 3600:.1f} hours" if size >= 3600 else f"{size:.0f} s"
    return f"{text} {'ahead' if seconds > 0 else 'back'}"


class ManualClock(Clock):
    """A clock that is read from a function, for tests and simulations."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now

    def wall(self) -> float:
        """Return the function's time."""
        return self._now()

    def steady(self) -> float:
        """Return the function's time."""
        return self._now()

    def running(self) -> float:
        """Return the function's time."""
        return self._now()

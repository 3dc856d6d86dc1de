"""Reliable time: a clock that never jumps, and ages by which old data may be deleted safely.

The wall clock may be wrong and may be corrected at any moment. Leases therefore use a clock that reads the wall clock
once and then follows the monotonic clock. Deletion needs more, since ages outlive the process: data is deleted only if
it was old enough at two observations that are a day of running time apart, and if the wall clock has not jumped in
between. A clock that has jumped ahead was perhaps behind before: then data that was made before looks older than it is,
by up to the length of the jump, and the observations are as far apart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from safelight.errors import MALFORMED

log = logging.getLogger(__name__)

DAY = 86400.0
_TOLERATED = 60.0
"""Seconds by which the wall clock may be corrected before this counts as a jump."""
_KEPT_EVERY = 600.0
"""Seconds of running time after which `Ages` should be stored again."""


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
        """Return a time that only ever advances by the time that has passed, including sleep of the machine."""
        try:
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        except (AttributeError, OSError):  # not on every platform
            return time.monotonic()


class Look(msgspec.Struct, frozen=True):
    """An observation of ages: the running time and the wall clock at that moment."""

    running: float
    wall: float


class _Kept(msgspec.Struct):
    """The state that outlives the process. `running` is the time that all processes together have run."""

    running: float = 0.0
    wall: float = 0.0
    looks: dict[str, Look] = {}
    confirmed: dict[str, float] = {}
    vouched: float = 0.0
    """The wall clock when a person confirmed it, unless it has jumped since; 0 if nobody did."""
    ahead: float = 0.0
    """The most seconds by which data may look older than it is, since the clock has jumped ahead after it was made."""
    ahead_at: float = 0.0
    """The running time of the last such jump."""
    confirmation: float = 0.0
    """The id of that confirmation, so that none counts twice."""


class Ages:
    """Decides which data is old enough to be deleted. Not thread-safe.

    When the wall clock jumps, this logs a warning and starts all observations again: nothing is deleted until a day, or
    the length of a longer jump ahead, has passed on a clock that does not jump. The time that data is kept is enough if
    it is shorter.
    """

    def __init__(self, kept: bytes | str | None = None, *, clock: Clock | None = None) -> None:
        """Continue from the state that `kept` returned in an earlier process."""
        self._clock = clock or Clock()
        self._kept = _read(kept)
        self._running, self._wall = self._clock.running(), self._clock.wall()
        self._written = self._kept.running
        if self._kept.wall:
            self._judge_start(self._wall - self._kept.wall)

    def before(self, name: str, keep: float) -> float | None:
        """Return the time (Unix seconds) before which data of a kind may be deleted, or None if none may be.

        `keep` is the retention time in seconds.
        """
        self._advance()
        span, kept = self._between(keep), self._kept
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
        """The last confirmation that was used."""
        return self._kept.confirmation

    def confirm(self, confirmation: float) -> None:
        """Trust the current clock for deletion, since a person has confirmed it. A `confirmation` of 0 means none.

        Each confirmation counts once: after another jump, a new one is needed.
        """
        self._advance()
        if confirmation in (0.0, self._kept.confirmation):
            return
        log.warning("A person has confirmed the clock; old data may be deleted")
        self._kept.confirmation, self._kept.vouched, self._kept.ahead = confirmation, self._wall, 0.0
        self._written = -_KEPT_EVERY

    def next_look(self, name: str, keep: float) -> float:
        """Return in how many seconds `before` may return a different time."""
        self._advance()
        look = self._kept.looks.get(name)
        return 0.0 if look is None else max(0.0, look.running + self._between(keep) - self._kept.running)

    def kept(self, *, due: bool = True) -> str | None:
        """Return the state to store for the next process, or None if it is not `due` yet."""
        self._advance()
        if due and self._kept.wall and self._kept.running - self._written < _KEPT_EVERY:
            return None
        self._written, self._kept.wall = self._kept.running, self._wall
        return msgspec.json.encode(self._kept).decode()

    def _between(self, keep: float) -> float:
        """Return how many seconds lie between two observations of data with a retention time.

        After that time everything that was made before the last jump ahead is really old.
        """
        kept = self._kept
        ahead = kept.ahead if kept.running - kept.ahead_at < keep else 0.0
        return min(keep, max(DAY, ahead))

    def _advance(self) -> None:
        running, wall = self._clock.running(), self._clock.wall()
        passed = max(0.0, running - self._running)
        jump = wall - self._wall - passed
        self._running, self._wall = running, wall
        self._kept.running += passed
        if abs(jump) > _TOLERATED:
            self._doubt(jump, f"The clock was set {_span(jump)}.")

    def _judge_start(self, gap: float) -> None:
        if gap < -_TOLERATED:
            self._doubt(gap, f"The clock is {_span(gap)} compared with the last time that was stored.")
        elif gap > DAY and (self._kept.looks or self._kept.confirmed):
            self._doubt(gap, f"The clock is {_span(gap)} since it was last stored; it may be wrong.")

    def _doubt(self, jump: float, sentence: str) -> None:
        # A clock that was set ahead and then back makes nothing look older; one that was set back and then ahead does.
        self._kept.ahead = max(0.0, self._kept.ahead + jump)
        if jump > 0:
            self._kept.ahead_at = self._kept.running
        log.warning(
            "%s Nothing is deleted until the clock has been steady for %s, or for as long as the data is kept if that "
            "is shorter, or a person confirms it (safelight confirm-clock).",
            sentence,
            _length(max(DAY, self._kept.ahead)),
        )
        self._kept.vouched = 0.0
        self._kept.looks.clear()
        self._kept.confirmed.clear()
        self._written = -_KEPT_EVERY  # must be stored at once


def _read(kept: bytes | str | None) -> _Kept:
    """Read the state of an earlier process; start afresh if it cannot be read."""
    try:
        return msgspec.json.decode(kept or b"{}", type=_Kept)
    except MALFORMED:
        return _Kept()


def _span(seconds: float) -> str:
    return f"{_length(abs(seconds))} {'ahead' if seconds > 0 else 'back'}"


def _length(seconds: float) -> str:
    if seconds >= DAY:
        return f"{seconds / DAY:.1f} days"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} s"


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

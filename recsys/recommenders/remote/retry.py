"""How long to wait before trying again: pure rules."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from recsys.seeding import unit_hash

RETRIED_STATUS = frozenset({408, 409, 425, 429})


def is_passing(status: int) -> bool:
    """Whether a status may be gone at the next attempt: 408, 409, 425, 429 and all of 5xx.

    >>> is_passing(429), is_passing(503), is_passing(401)
    (True, True, False)
    """
    return status in RETRIED_STATUS or 500 <= status < 600


def backoff(attempt: int, first_s: float, longest_s: float, *key: object) -> float:
    """Seconds before attempt number `attempt` + 1 (from 0): first_s · 2^attempt, of which the key decides between a
    half and all, so that requests which failed together do not come back together.
    """
    whole = min(first_s * 2.0 ** min(attempt, 60), longest_s)
    return whole * (0.5 + 0.5 * unit_hash("retry", attempt, *key))


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds asked for by a Retry-After header (RFC 9110: seconds or a date), 0 for a date gone by; None when it is
    absent or cannot be read.

    >>> retry_after("7", datetime(2026, 1, 1, tzinfo=UTC)), retry_after("soon", datetime(2026, 1, 1, tzinfo=UTC))
    (7.0, None)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        # RFC 9110 dates are GMT; "-0000" reads as a naive time.
        seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
        return max(seconds, 0.0)
    return seconds if 0 <= seconds < float("inf") else None

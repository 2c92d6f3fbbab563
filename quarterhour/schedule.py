"""Schedules: cron expressions in UTC, and the five words that Netlify has for them. Pure."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

__all__ = ["ALIASES", "is_schedule"]

LENGTH_MAX = 256

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def is_schedule(text: str) -> bool:
    """Whether `text` is one of the words, or a cron expression that some moment fits.

    Five fields as Debian's cron reads them; six begin with the seconds.
    """
    if len(text) > LENGTH_MAX:
        return False
    try:
        CronSim(ALIASES.get(text, text), datetime.now(UTC))
    except CronSimError:
        return False
    return True

"""A team's word that an alert is known: `tiphys_known_issue` on its rule, with an end and a reason.

    annotations:
      tiphys_known_issue: 2026-09-01 SHOP-123 the cart leaks until its next release

Invariant: without a date that is yet to come and a reason, nothing is known.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from tiphys.agents.notebook import Notebook, short
from tiphys.policies.model import Alert

ANNOTATION: Final = "tiphys_known_issue"
LONGEST: Final = timedelta(days=90)
"""What is known for longer than that is no longer an issue but a habit."""
_WRITTEN = re.compile(r"\s*(\d{4}-\d{2}-\d{2})\s+(\S.*)", re.DOTALL)


def known_issue(alerts: Sequence[Alert], now: datetime, book: Notebook) -> tuple[str, float] | None:
    """Give the sentence and the seconds for which all these alerts are known; None: they are not.

    What is written and does not count is noted.
    """
    found = [_one(alert, now, book) for alert in alerts]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    until, why = min(known)
    sentence = f"it is a known issue until {until:%Y-%m-%d}: {short(why, 300)}"
    return sentence, (until - now).total_seconds()


def _one(alert: Alert, now: datetime, book: Notebook) -> tuple[datetime, str] | None:
    written = alert.annotations.get(ANNOTATION)
    if written is None:
        return None
    matched = _WRITTEN.fullmatch(written)
    try:
        day = date.fromisoformat(matched[1]) if matched else None
    except ValueError:
        day = None
    if matched is None or day is None:
        book.note(
            f"{ANNOTATION} of {alert.name} does not count: a date such as 2026-09-01 and a reason "
            f"were expected, not {short(written, 60)!r}"
        )
        return None
    until = datetime.combine(day + timedelta(days=1), time(), UTC)
    if until <= now:
        book.note(f"{alert.name} was a known issue until {day}; that is over")
        return None
    if until - now > LONGEST:
        book.note(f"{alert.name} is called known until {day}: more than {LONGEST.days} days ahead")
        return None
    return until, matched[2]

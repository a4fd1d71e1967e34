"""Names of time zones, as IANA spells them; their rules come with the package `tzdata`.

They are constants that Python reads once, like `xid.csv`: a name is tried when the policy is read,
so that no rule meets one that does not exist.
"""

import difflib
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        meant = f"; did you mean {close[0]}?" if close else ", such as Europe/Berlin or UTC"
        raise ValueError(f"there is no time zone {name[:60]!r}{meant}") from None
    return name


ZoneName = Annotated[str, AfterValidator(_known)]
"""Such as Europe/Berlin or UTC."""

"""Outside text made harmless for Slack: what a label, a log line or a person wrote stays text.

Invariants: no secret, no control character and no `<`, which begins every mention, link and command
of Slack's markup, comes through; a text is never longer than its limit, and one that was cut ends
with `…`. Slack's rules: docs.slack.dev/messaging/formatting-message-text.
"""

from typing import Final
from urllib.parse import urlsplit

from tiphys.agents.redact import redact

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP: Final = frozenset("*_~`@#")
_JOINER: Final = "\u2060"
"""A word joiner: no width, and Slack's markup does not begin or end beside it."""
_READ: Final = 20_000
"""Characters of one value that are looked at at all."""
_URL_LIMIT: Final = 3000


def size(text: str) -> int:
    """Count a text as Slack may at worst: in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


def shown(value: object, limit: int = 400) -> str:
    """Give outside text for a `plain_text` object: redacted, on one line, escaped, bounded."""
    return _cut(_clean(redact(str(value)[:_READ])), limit)


def name(value: object, limit: int = 200) -> str:
    """Give a name as it is, where redaction would hide who somebody is; escaped and bounded."""
    return _cut(_clean(str(value)[:_READ]), limit)


def spoken(value: object, limit: int = 400) -> str:
    """Give outside text for where Slack reads markup, such as a notification: without any."""
    return _cut(_clean(redact(str(value)[:_READ])), limit, apart=_MARKUP)


def link(url: str) -> str | None:
    """Give a URL that a button may open: http(s) with a host, no credentials; else None."""
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
        )
    except ValueError:
        return None
    strange = any(c in "<>|\"'\\` " or not c.isprintable() for c in url)
    # A secret in it would be hidden, and the link then lead nowhere.
    return url if good and not strange and size(url) <= _URL_LIMIT and redact(url) == url else None


def _clean(text: str) -> str:
    """Keep what can be seen; everything else, line ends and directions of writing too, parts."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cut(text: str, limit: int, apart: frozenset[str] = frozenset()) -> str:
    kept: list[str] = []
    used = 0
    for position, character in enumerate(text):
        part = _ENTITIES.get(character, character)
        if character in apart:
            part = f"{_JOINER}{character}{_JOINER}"
        rest = position + 1 < len(text)
        if used + size(part) + rest > limit:
            return "".join(kept).rstrip() + "…"
        kept.append(part)
        used += size(part)
    return "".join(kept)

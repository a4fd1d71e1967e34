"""Slack's Block Kit, as far as we use it, within the limits that Slack documents.

Invariant: every text that comes from outside stands in a `plain_text` object, where Slack reads no
markup. Limits: docs.slack.dev/reference/block-kit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tiphys.service.slack.escaping import size

Block = dict[str, Any]

SECTION: Final = 3000
FIELD: Final = 2000
FIELDS: Final = 10
HEADER: Final = 150
BUTTON: Final = 75
VALUE: Final = 2000
BLOCKS: Final = 50
MODAL_TITLE: Final = 24
METADATA: Final = 3000


def text(words: str) -> Block:
    """Give a `plain_text` object; a colon stays a colon."""
    return {"type": "plain_text", "text": words or " ", "emoji": False}


def header(words: str) -> Block:
    """Give a title."""
    return {"type": "header", "text": text(words)}


def section(words: str, accessory: Block | None = None) -> Block:
    """Give a paragraph, with a button beside it where one is given."""
    block: Block = {"type": "section", "text": text(words)}
    return {**block, "accessory": accessory} if accessory else block


def fields(pairs: Mapping[str, str]) -> Block:
    """Give names and values in two columns; at most ten."""
    found = [text(f"{key}\n{value}") for key, value in pairs.items() if value]
    return {"type": "section", "fields": found[:FIELDS]}


def context(words: str) -> Block:
    """Give a small line."""
    return {"type": "context", "elements": [text(words)]}


def actions(buttons: Sequence[Block]) -> Block:
    """Give a row of buttons."""
    return {"type": "actions", "elements": [*buttons]}


def button(
    label: str, action: str, value: str, *, style: str = "", confirm: Block | None = None
) -> Block:
    """Give a button; `style` is `primary`, `danger` or nothing."""
    made: Block = {"type": "button", "text": text(label), "action_id": action, "value": value}
    if style:
        made["style"] = style
    if confirm:
        made["confirm"] = confirm
    return made


def link_button(label: str, action: str, url: str) -> Block:
    """Give a button that opens a page; Slack tells us of the click all the same."""
    return {"type": "button", "text": text(label), "action_id": action, "url": url}


def confirm(title: str, words: str, yes: str, no: str) -> Block:
    """Give the question that Slack asks before it takes a click."""
    return {"title": text(title), "text": text(words), "confirm": text(yes), "deny": text(no)}


def reason_modal(callback: str, title: str, submit: str, metadata: str, warning: str = "") -> Block:
    """Give a form that asks for a reason, under a warning where one is given."""
    return {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": metadata,
        "title": text(title),
        "submit": text(submit),
        "close": text("Cancel"),
        "blocks": [
            *([section(warning)] if warning else []),
            {
                "type": "input",
                "block_id": "reason",
                "label": text("Why? It is kept in the record."),
                "element": {
                    "type": "plain_text_input",
                    "action_id": "reason",
                    "multiline": True,
                    "max_length": 2000,
                },
            },
        ],
    }


def lines(heading: str, found: Sequence[str], *, more: str, limit: int = SECTION) -> str:
    """Join lines under a heading within a limit; what does not fit is counted, never dropped.

    `more` says where the rest can be read.
    """
    kept, used = [heading], size(heading)
    for number, line in enumerate(found):
        rest = len(found) - number
        tail = f"…and {rest} more: {more}"
        after = size(f"…and {rest - 1} more: {more}") + 1 if rest > 1 else 0
        if used + 1 + size(line) + after > limit:
            kept.append(tail)
            break
        kept.append(line)
        used += 1 + size(line)
    return "\n".join(kept)

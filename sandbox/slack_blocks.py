"""What Slack refuses of Block Kit: its documented limits, as far as our messages come near them.

From docs.slack.dev/reference/block-kit (blocks, block elements, composition objects) and
docs.slack.dev/reference/views. Whatever is not known here is refused: better a false alarm in a
test than a card that Slack does not take.
"""

import re
from collections.abc import Iterator
from typing import Any

_LINK = re.compile(r"<([^<>]*)>")


def units(text: str) -> int:
    """Count UTF-16 units, the most that any of Slack's clients counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def problems(blocks: Any, *, modal: bool = False) -> list[str]:
    """Say everything that is wrong with a message's or a modal's blocks."""
    if not isinstance(blocks, list):
        return ["blocks is no list"]
    found = [] if len(blocks) <= (100 if modal else 50) else [f"{len(blocks)} blocks"]
    names: set[str] = set()
    for number, block in enumerate(blocks):
        found += [f"[{number}] {problem}" for problem in _block(block, modal)]
        name = block.get("block_id") if isinstance(block, dict) else None
        if name is not None:
            found += [f"[{number}] block_id twice"] if name in names else []
            names.add(name)
    return found


def view_problems(view: Any) -> list[str]:
    """Say everything that is wrong with a modal."""
    if not isinstance(view, dict) or view.get("type") != "modal":
        return ["no modal"]
    found = [*_text(view.get("title"), 24, "title", plain=True)]
    for button in ("submit", "close"):
        if button in view:
            found += _text(view[button], 24, button, plain=True)
    if units(view.get("private_metadata", "")) > 3000:
        found.append("private_metadata over 3000")
    if units(view.get("callback_id", "")) > 255:
        found.append("callback_id over 255")
    inputs = any(b.get("type") == "input" for b in view.get("blocks", []))
    if inputs and "submit" not in view:
        found.append("an input without submit")
    return found + problems(view.get("blocks"), modal=True)


def markup(value: Any) -> Iterator[str]:
    """Give each text that Slack reads as markup, wherever it stands."""
    if isinstance(value, dict):
        if value.get("type") == "mrkdwn":
            yield str(value.get("text"))
        for item in value.values():
            yield from markup(item)
    elif isinstance(value, list):
        for item in value:
            yield from markup(item)


def commands(text: str) -> list[str]:
    """Give the mentions, links and commands that Slack would find in a text."""
    return _LINK.findall(text)


def _block(block: Any, modal: bool) -> Iterator[str]:
    if not isinstance(block, dict):
        yield "no object"
        return
    if units(block.get("block_id", "")) > 255:
        yield "block_id over 255"
    match block.get("type"):
        case "header":
            yield from _text(block.get("text"), 150, "header", plain=True)
        case "section":
            yield from _section(block)
        case "context":
            yield from _several(block, 10)
            for element in block.get("elements") or []:
                yield from _text(element, 3000, "context")
        case "actions":
            yield from _several(block, 25)
            yield from _row(block.get("elements") or [])
        case "divider":
            pass
        case "input" if modal:
            yield from _text(block.get("label"), 2000, "label", plain=True)
            yield from _input(block.get("element") or {})
        case other:
            yield f"block type {other!r}"


def _several(block: dict[str, Any], limit: int) -> Iterator[str]:
    count = len(block.get("elements") or [])
    if not 1 <= count <= limit:
        yield f"{count} elements in {block['type']}"


def _row(buttons: list[Any]) -> Iterator[str]:
    names = [button.get("action_id") for button in buttons]
    if len(set(names)) != len(names):
        yield "action_id twice in one block"
    for button in buttons:
        yield from _button(button)


def _section(block: dict[str, Any]) -> Iterator[str]:
    if "text" not in block and not block.get("fields"):
        yield "a section with neither text nor fields"
    if "text" in block:
        yield from _text(block["text"], 3000, "section")
    found = block.get("fields", [])
    if len(found) > 10:
        yield f"{len(found)} fields"
    for field in found:
        yield from _text(field, 2000, "field")
    if "accessory" in block:
        yield from _button(block["accessory"])


def _text(text: Any, limit: int, where: str, *, plain: bool = False) -> Iterator[str]:
    if not isinstance(text, dict) or text.get("type") not in {"plain_text", "mrkdwn"}:
        yield f"{where}: no text object"
        return
    if plain and text["type"] != "plain_text":
        yield f"{where}: only plain_text"
    if text["type"] == "mrkdwn" and "emoji" in text:
        yield f"{where}: emoji is for plain_text"
    words = text.get("text")
    if not isinstance(words, str) or not 1 <= units(words) <= limit:
        yield f"{where}: must be 1 to {limit} characters"


def _button(button: Any) -> Iterator[str]:
    if not isinstance(button, dict) or button.get("type") != "button":
        yield "only buttons are known here"
        return
    yield from _text(button.get("text"), 75, "button", plain=True)
    if not 1 <= units(button.get("action_id", "")) <= 255:
        yield "action_id must be 1 to 255 characters"
    if units(button.get("value", "")) > 2000:
        yield "value over 2000"
    url = button.get("url")
    if url is not None and (units(url) > 3000 or not re.match(r"https?://[^\s/]+", url)):
        yield "url over 3000, or none"
    if button.get("style", "primary") not in {"primary", "danger"}:
        yield f"style {button['style']!r}"
    if "confirm" in button:
        asked = button["confirm"]
        for part, limit in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)):
            yield from _text(asked.get(part), limit, f"confirm {part}", plain=part != "text")


def _input(element: dict[str, Any]) -> Iterator[str]:
    if element.get("type") != "plain_text_input":
        yield f"input {element.get('type')!r}"
    if not 1 <= units(element.get("action_id", "")) <= 255:
        yield "action_id must be 1 to 255 characters"
    if not 1 <= int(element.get("max_length", 3000)) <= 3000:
        yield "max_length over 3000"

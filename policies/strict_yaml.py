"""YAML as plain JSON values with the line of each: no anchors, no tags, no surprises.

Invariants: size and depth are bounded before anything is built, a duplicate key is refused, and
only `true`, `false`, `null` and plain numbers are anything but text (`no` and `2026-01-01` are
text).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

from tiphys.policies.model import Json

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 20

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_WORDS: Final[dict[str, bool | None]] = {
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
}

Path = tuple[str | int, ...]
"""Where a value stands: keys and positions from the top."""


class YamlUnreadableError(Exception):
    """The text is no plain YAML; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


@dataclass(frozen=True)
class Document:
    """One YAML document."""

    value: Json
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Give the line of a value, or of the nearest thing around it that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str) -> Document:
    """Read one document; raises `YamlUnreadableError`."""
    size = len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        raise YamlUnreadableError(1, f"{size} bytes, at most {MAX_BYTES} may be")
    try:
        _refuse_tricks(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise YamlUnreadableError(line, f"not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise YamlUnreadableError(1, f"not YAML: {str(error).splitlines()[0]}") from error
    lines: dict[Path, int] = {}
    value = None if root is None else _value(root, (), lines)
    return Document(value, lines)


def _refuse_tricks(text: str) -> None:
    """Walk the events, which needs no recursion, before anything recursive sees the text."""
    depth = 0
    for event in _events(text):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlUnreadableError(line, "anchors and aliases are not allowed: write it out")
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise YamlUnreadableError(line, f"more than {MAX_DEPTH} levels deep")
        if getattr(event, "tag", None):
            raise YamlUnreadableError(line, f"the tag {event.tag} is not allowed")  # type: ignore[attr-defined]


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> Json:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, at), lines) for at, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines)
    if isinstance(node, yaml.ScalarNode) and node.style is not None:
        return str(node.value)  # quoted: text, whatever it looks like
    return _plain(str(node.value), node.start_mark.line + 1)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> Json:
    result: dict[str, Json] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlUnreadableError(line, "a key must be text")
        key = str(key_node.value)
        if key in result:
            raise YamlUnreadableError(line, f"the key {key} stands here twice")
        lines[(*path, key)] = line
        result[key] = _value(value_node, (*path, key), lines)
    return result


def _plain(text: str, line: int) -> Json:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    if _NUMBER.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise YamlUnreadableError(line, f"the number {text} is too large")
        return number
    return text

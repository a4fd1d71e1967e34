"""The tables of docs/policies.md from what enforces them: `make golden` writes, a test says when.

What a request holds is `policies/request_view.py`; a built-in rule says of itself what it is for,
and its defaults are those of its fields.
"""

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from tiphys.policies.gate import RULES
from tiphys.policies.request_view import REQUEST
from tiphys.policies.rule import Rule

PAGE = Path(__file__).resolve().parent.parent / "docs" / "policies.md"


def page(text: str) -> str:
    """Give the page with both tables as they are due."""
    return _between(_between(text, "request", _request()), "rules", _rules())


def _between(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    head, rest = text.split(begin)
    return head + begin + table + end + rest.split(end)[1]


def _request() -> str:
    rows = "".join(f"| `{path}` | {what} |\n" for path, what in REQUEST.items())
    return "| path | what it holds |\n|---|---|\n" + rows


def _rules() -> str:
    rows = "".join(f"| `{kind.name}` | {_purpose(kind)} | {_settings(kind)} |\n" for kind in RULES)
    return "| rule | what must hold | settings and defaults |\n|---|---|---|\n" + rows


def _purpose(kind: type[Rule]) -> str:
    """Give the first paragraph of what the rule says of itself."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _settings(kind: type[Rule]) -> str:
    rule = kind()
    given = [
        f"`{one.name}: {_value(getattr(rule, one.name))}`" for one in fields(cast("Any", kind))
    ]
    return "<br>".join(given)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return value


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))

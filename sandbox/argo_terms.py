"""The small language of a WorkflowTemplate that our templates use: placeholders, `when`, node ids.

Pure. Names, ids and messages are spelled as Argo Workflows 4.0 spells them.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

COMPLETED = ("Succeeded", "Failed", "Error", "Skipped", "Omitted")
"""Node phases after which nothing happens any more."""

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z0-9_.\-]+)\s*\}\}")
_COMPARISON = re.compile(r"^(.*?)(==|!=)(.*)$", re.DOTALL)
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$")
_FINAL = re.compile(r"^asInt\(lastRetry\.exitCode\) not in \[([\d, ]*)\]$")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class TemplateError(Exception):
    """The template says something that Argo would refuse, or that this sandbox cannot run."""


def substitute(value: Any, scope: Mapping[str, str]) -> Any:
    """Replace every placeholder in every string of a JSON value; unknown names stay as they are.

    An output that was never written reads as empty, as it reached an exit handler's pod live.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: _look_up(found, scope), value)
    if isinstance(value, dict):
        return {key: substitute(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, scope) for item in value]
    return value


def _look_up(found: re.Match[str], scope: Mapping[str, str]) -> str:
    name = found.group(1)
    if name in scope:
        return scope[name]
    return "" if ".outputs." in name else found.group(0)


def holds(when: str, scope: Mapping[str, str]) -> bool:
    """Evaluate a step's `when`: comparisons with == or !=, joined by &&; none at all is true."""
    text = str(substitute(when, scope)).strip()
    if not text:
        return True
    return all(_compare(part) for part in text.split("&&"))


def _compare(text: str) -> bool:
    match = _COMPARISON.match(text.strip())
    if match is None:
        if text.strip() in ("true", "false"):
            return text.strip() == "true"
        raise TemplateError(f"invalid 'when' expression '{text}'")
    left, operator, right = (part.strip().strip("'\"") for part in match.groups())
    return (left == right) is (operator == "==")


def parameters(declared: Any, given: Any, what: str) -> dict[str, str]:
    """Bind declared parameters to the given ones or their defaults; raises `TemplateError`."""
    values = {item["name"]: item for item in given or []}
    bound: dict[str, str] = {}
    for item in declared or []:
        name = item["name"]
        value = values.get(name, item).get("value", item.get("value", item.get("default")))
        if value is None:
            raise TemplateError(f"{what}.{name} was not supplied")
        bound[name] = str(value)
    return bound


def seconds(value: Any) -> float | None:
    """Read a duration such as 30, "30" or "5m" in seconds; None where there is none."""
    if value is None or value == "":
        return None
    match = _DURATION.match(str(value))
    if match is None:
        raise TemplateError(f"invalid duration '{value}'")
    return float(match.group(1)) * _UNIT_SECONDS[match.group(2) or "s"]


def final_codes(expression: str) -> set[int]:
    """Read which exit codes a retryStrategy's expression does not try again; empty: none."""
    if not expression:
        return set()
    match = _FINAL.match(expression)
    if match is None:
        raise TemplateError(f"the sandbox cannot evaluate '{expression}'")
    return {int(code) for code in match.group(1).split(",") if code.strip()}


def node_id(workflow: str, node_name: str) -> str:
    """Give a node's id: the Workflow's name for the first, else with FNV-1a of the node's name."""
    if node_name == workflow:
        return workflow
    return f"{workflow}-{_fnv(node_name)}"


def pod_name(workflow: str, template: str, node_name: str) -> str:
    """Give the pod's name as Argo's pod names v2."""
    return f"{workflow}-{template}-{_fnv(node_name)}"


def _fnv(text: str) -> int:
    state = 0x811C9DC5
    for byte in text.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def stamp(at: datetime | None = None) -> str:
    """Give a time as Kubernetes writes it, whole seconds in UTC."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str) -> datetime:
    """Read a time as Kubernetes writes it."""
    return datetime.fromisoformat(text)

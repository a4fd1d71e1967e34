"""The kubernetes-mixin's rules, faster: the same expressions, with every wait in them shortened.

A rule that waits for 15 minutes proves nothing more to a test than one that waits for 30 seconds,
so each duration is divided by `FACTOR` and kept above a floor, and nothing else is touched:

- `for` and `keep_firing_for` of a rule,
- range windows, `[5m]`, and both parts of a subquery, `[1h:1m]`,
- `offset 5m`,
- `interval` of a group, which is set outright.

Names, labels, numbers, thresholds, strings, comments and the order of rules stay byte for byte; a
recording rule named after its window (`...:rate5m`) keeps that name. No floor is under four scrapes
of the test's Prometheus, or `changes()` and `rate()` would have nothing to compare.
"""

import re
from collections.abc import Mapping
from typing import Any

FACTOR = 30
"""A minute becomes two seconds: with less, a pod that only starts slowly would be called broken."""
INTERVAL_SECONDS = 2
"""How often a group is evaluated, and how often Prometheus scrapes."""
LEAST_WINDOW = 5 * INTERVAL_SECONDS
"""Seconds; four scrapes and one to spare."""
LEAST_FOR = 2 * INTERVAL_SECONDS
"""Seconds."""

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_TOKEN = re.compile(
    r"""(?P<kept>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`|\#[^\n]*)"""
    rf"|\[\s*(?P<window>{_DURATION})\s*(?::\s*(?P<step>{_DURATION})?\s*)?\]"
    rf"|\boffset\s+(?P<offset>-?{_DURATION})",
)


def seconds(duration: str) -> float:
    """Read a Prometheus duration such as `1h30m`; raises ValueError."""
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"{duration!r} is not a duration")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(duration))


def shortened(duration: str, least: float) -> str:
    """Divide a duration by `FACTOR`, but not below `least` seconds nor above what it was."""
    given = seconds(duration)
    wanted = min(given, max(least, given / FACTOR))
    return f"{round(wanted * 1000)}ms" if wanted % 1 else f"{round(wanted)}s"


def hastened(expression: str) -> str:
    """Shorten the windows, steps and offsets of a PromQL expression."""

    def shorter(found: re.Match[str]) -> str:
        if found["kept"] is not None:
            return found[0]
        if found["offset"] is not None:
            return found[0].replace(
                found["offset"].lstrip("-"), shortened(found["offset"].lstrip("-"), 0)
            )
        window = shortened(found["window"], LEAST_WINDOW)
        if ":" not in found[0]:
            return f"[{window}]"
        return f"[{window}:{shortened(found['step'], INTERVAL_SECONDS) if found['step'] else ''}]"

    return _TOKEN.sub(shorter, expression)


def hasten(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Give a rule file, as parsed YAML, that waits a `FACTOR`th of the time."""
    return {**rules, "groups": [_group(group) for group in rules["groups"]]}


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    faster = [_rule(rule) for rule in group["rules"]]
    return {**group, "interval": f"{INTERVAL_SECONDS}s", "rules": faster}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    waits = {
        key: shortened(rule[key], LEAST_FOR) for key in ("for", "keep_firing_for") if key in rule
    }
    return {**rule, "expr": hastened(rule["expr"]), **waits}

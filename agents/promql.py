"""Builds and reads PromQL so that a label's value can never become part of the query.

Invariant: whatever comes from an alert or the cluster enters a query as one quoted string.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache

import promql_parser

_VOLATILE = frozenset({"uid", "instance", "container_id", "id", "image_id", "reason"})
"""Labels that change while the trouble stays the same."""
_OF_THE_EXPORTER = frozenset({"pod", "endpoint", "service"})
"""Labels that say who told, where the alert is not about a pod."""
_MATCHER = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def quoted(value: str, limit: int = 500) -> str:
    """Write a string literal of PromQL, of bounded length."""
    escaped = value[:limit].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def regex_of(value: str) -> str:
    """Escape a value for RE2, as part of a regular expression; RE2 refuses escaped letters."""
    return re.sub(r"([^a-zA-Z0-9_\x80-\U0010ffff-])", r"\\\1", value[:250])


def pods_named_like(prefix: str) -> str:
    """Write the quoted regular expression that matches a workload's pods."""
    return quoted(f"{regex_of(prefix)}-.*")


def selector(metric: str, labels: Mapping[str, str]) -> str:
    """Write an instant selector with equality matchers."""
    inner = ",".join(f"{k}={quoted(v)}" for k, v in labels.items() if _MATCHER.fullmatch(k))
    return f"{metric}{{{inner}}}"


def same_series(series: Mapping[str, str], alert: Mapping[str, str]) -> bool:
    """Tell whether an alert with these labels came from that series of the rule's expression.

    An alert bears the series' labels and adds the rule's and the server's own; labels that
    relabelling dropped from the alert say nothing.
    """
    shared = {k for k in series if k in alert and k not in {"__name__", "alertname"}}
    differing = any(series[k] != alert[k] for k in shared)
    return not differing and (bool(shared) or not set(series) - {"__name__"})


def lasting_labels(
    alert: Mapping[str, str], series: Mapping[str, str], *, about_pod: bool
) -> dict[str, str]:
    """Give the labels that single out the alert's own series among the expression's.

    Only what the series itself bears: the rule's and the server's own labels are not on it.
    """
    gone = {"__name__", *_VOLATILE} | (set() if about_pod else _OF_THE_EXPORTER)
    return {k: v for k, v in series.items() if k not in gone and alert.get(k) == v}


def longest_range(expression: str) -> float:
    """Give the seconds that an expression looks back, offsets and subqueries included.

    Nested subqueries and ranges add up, so the longest of each kind are added: never too short
    for one nesting. Raises ValueError for what is not PromQL.
    """
    longest = {"subquery": timedelta(), "range": timedelta()}

    def visit(node: object) -> None:
        kind = "subquery" if isinstance(node, promql_parser.SubqueryExpr) else "range"
        reach = getattr(node, "range", None)
        offset = getattr(getattr(node, "vector_selector", node), "offset", None)
        total = timedelta()
        total += reach if isinstance(reach, timedelta) else timedelta()
        total += offset if isinstance(offset, timedelta) and offset > timedelta() else timedelta()
        longest[kind] = max(longest[kind], total)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return (longest["subquery"] + longest["range"]).total_seconds()


def looks_back(expression: str, recorded: Mapping[str, Sequence[str]]) -> float:
    """Give the seconds that an expression looks back through the recording rules that it reads.

    `recorded`: the expressions behind each recorded name. Raises ValueError for what is not PromQL.
    """
    return _reach(expression, recorded, frozenset())


def _reach(
    expression: str, recorded: Mapping[str, Sequence[str]], climbed: frozenset[str]
) -> float:
    own, names = _of_itself(expression)
    behind = (
        _reach(one, recorded, climbed | {name})
        for name in names - climbed
        for one in recorded.get(name, ())
    )
    return own + max(behind, default=0.0)


@lru_cache(maxsize=8192)
def _of_itself(expression: str) -> tuple[float, frozenset[str]]:
    return longest_range(expression), frozenset(what_it_reads(expression)[0])


def what_it_reads(expression: str) -> tuple[set[str], set[str]]:
    """Give the metrics an expression reads and the scrape jobs it names; raises ValueError."""
    metrics: set[str] = set()
    jobs: set[str] = set()

    def visit(node: object) -> None:
        if not isinstance(node, promql_parser.VectorSelector):
            return
        if node.name:
            metrics.add(node.name)
        for matcher in node.matchers.matchers:
            if matcher.name == "job" and str(matcher).startswith("job="):
                jobs.add(matcher.value)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return metrics, jobs


def any_of(names: Iterable[str]) -> str:
    """Write the quoted regular expression that matches each of these names."""
    return quoted("|".join(regex_of(name) for name in sorted(names)), limit=8_000)

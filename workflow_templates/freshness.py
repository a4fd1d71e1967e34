"""Whether Prometheus can know at all: "no series" must not pass for "all is well"."""

import re
from collections.abc import Sequence

from tiphys.workflow_templates.metrics import Metrics

_STRINGS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_NAMED = re.compile(r"__name__\s*=\s*([\"'])([A-Za-z_:][\w:]*)\1")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\b\s*(\([^)]*\))?")
_OFFSET = re.compile(r"\boffset\s+-?\s*\w+")
_WORD = re.compile(r"(?<![\w.:])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])")
_KEYWORDS = {"and", "or", "unless", "bool", "atan2", "inf", "nan"}


def metric_names(query: str) -> Sequence[str]:
    """List the metrics that a PromQL expression selects, in order, each once."""
    named = [match.group(2) for match in _NAMED.finditer(query)]
    text = _STRINGS.sub('""', query)
    text = re.sub(r"#[^\n]*", " ", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = _OFFSET.sub(" ", _GROUPING.sub(" ", text))
    words = [w for w in _WORD.findall(text) if w.lower() not in _KEYWORDS]
    return list(dict.fromkeys([*words, *named]))


def blind_spot(metrics: Metrics, query: str, since: float) -> str | None:
    """Say why Prometheus cannot judge an expression on samples after `since`, or None if it can.

    A metric with a sample after `since` is seen. One without any series now may be one that exists
    only while something is wrong; then its scrapers of the last hour must be up, and Prometheus
    must have scraped something since. Raises `UnansweredError`.
    """
    for name in metric_names(query):
        newest = _newest(metrics, name)
        if newest is not None and newest >= since:
            continue
        if newest is not None:
            return f"Prometheus has no sample of {name} since the change"
        lost = metrics.instant(
            f'count by (job) (last_over_time({name}{{job!=""}}[1h])) unless on (job) (up == 1)'
        )
        if lost:
            job = lost[0].labels.get("job", "")
            return f"Prometheus has no {name}, and nothing of job {job} is up"
        scraped = _newest(metrics, "up")
        if scraped is None or scraped < since:
            return f"Prometheus has no {name}, and has scraped nothing since the change"
    return None


def _newest(metrics: Metrics, name: str) -> float | None:
    found = metrics.instant(f"max(timestamp({name}))")
    return found[0].value if found else None

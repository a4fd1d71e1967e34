"""The page on metrics lists each that the code exports, and no other."""

import re
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

sys.path.append(str(Path(__file__).parents[1]))

from exported import exported, makes_metrics

from tiphys.service.events_out import EventMetrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_lists_every_metric_and_no_other() -> None:
    names = exported()
    histograms = {name.removesuffix("_bucket") for name in names if name.endswith("_bucket")}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    metrics, _ = PAGE.read_text().split("\n## Alerts\n")
    listed = re.findall(r"^\| `(tiphys_\w+)", metrics, re.MULTILINE)
    assert sorted(listed) == sorted((names | histograms) - parts)


def test_metrics_of_every_role_are_found() -> None:
    assert {
        "tiphys_webhook_posts_total",
        "tiphys_webhook_seconds_bucket",
        "tiphys_intake_alerts_total",
        "tiphys_reconcile_last_success_timestamp_seconds",
        "tiphys_events_undelivered_total",
        "tiphys_holds",
    } <= exported()


def test_a_class_that_takes_a_registry_is_taken_for_metrics() -> None:
    class New:
        def __init__(self, registry: CollectorRegistry) -> None:
            Counter("tiphys_new", "New.", registry=registry)

    assert makes_metrics(New)
    assert makes_metrics(EventMetrics)
    assert not makes_metrics(Path)

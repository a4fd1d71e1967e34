"""Our own alerts fire when they should and not before, by Prometheus' own tool."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import Render, one

HERE = 'namespace="tiphys-system"'
A, B = f'pod="a",{HERE}', f'pod="b",{HERE}'
FREEZE, BREAKER = 'tiphys_holds{kind="freeze",%s}', 'tiphys_holds{kind="breaker",%s}'
ESCALATION = 'tiphys_escalation_oldest_age_seconds{severity="%s",' + A + "}"
LAG = f"tiphys_intake_oldest_age_seconds{{{A}}}"
RUN = f"tiphys_run_oldest_age_seconds{{{A}}}"
DELIVERED, FAILURES, UNDELIVERED = (
    f"tiphys_events_{name}_total{{{A}}}" for name in ("delivered", "failures", "undelivered")
)
GATEWAY, AGENTS = (f'up{{job="tiphys-{role}",{HERE}}}' for role in ("gateway", "agents"))
SELDOM = " ".join(f"{number}x4" for number in range(20))
NOT_AFTER_SECONDS = 900
"""The longest that a run may take from its intent to its first step."""
WELL = {FREEZE % A: "0x60", LAG: "0x60", GATEWAY: "1x60", AGENTS: "1x60"}


@dataclass(frozen=True)
class Case:
    """What Prometheus has seen, a sample a minute, and which alert of ours fires at that minute."""

    alert: str
    series: Mapping[str, str]
    minute: int
    fires: bool = True


CASES = [
    Case("TiphysTargetFrozen", {FREEZE % A: "1x30", FREEZE % B: "1x30"}, 11),
    Case("TiphysTargetFrozen", {FREEZE % A: "1x30"}, 5, fires=False),
    Case("TiphysTargetFrozen", {FREEZE % A: "0x30", BREAKER % A: "1x30"}, 15, fires=False),
    Case("TiphysTargetFrozen", {FREEZE % A: "1x15 stale _x2 1x10"}, 18),  # the database was away
    Case("TiphysTargetFrozen", {FREEZE % A: "1x15 0x15"}, 16, fires=False),  # released
    Case("TiphysTargetFrozen", {FREEZE % 'namespace="other"': "1x30"}, 15, fires=False),
    Case("TiphysBreakerTripped", {BREAKER % A: "2x30"}, 11),
    Case("TiphysBreakerTripped", {FREEZE % A: "1x30", BREAKER % A: "0x30"}, 15, fires=False),
    *(
        Case("TiphysEscalationUnacknowledged", {ESCALATION % grade: f"{age}x9"}, 5, fires)
        for grade, age, fires in (
            ("critical", 901, True),
            ("critical", 899, False),
            ("warning", 5401, True),
            ("warning", 5399, False),
            ("info", 43201, True),
            ("info", 43199, False),
        )
    ),
    Case("TiphysIntakeLagging", {LAG: "0+60x30"}, 11),
    Case("TiphysIntakeLagging", {LAG: "0+60x30"}, 9, fires=False),
    Case("TiphysIntakeLagging", {LAG: "400x2 0x30"}, 8, fires=False),  # a storm, taken in
    Case("TiphysRunOpenTooLong", {RUN: "7201x9"}, 5),
    Case("TiphysRunOpenTooLong", {RUN: "7199x9"}, 5, fires=False),
    Case("TiphysEventsUndelivered", {UNDELIVERED: "0x10 1x90"}, 12),
    Case("TiphysEventsUndelivered", {UNDELIVERED: "0x10 1x90"}, 60),
    Case("TiphysEventsUndelivered", {UNDELIVERED: "0x10 1x90"}, 75, fires=False),
    Case("TiphysEventsUndelivered", {UNDELIVERED: "3x90"}, 60, fires=False),
    Case("TiphysEventsUndelivered", {UNDELIVERED: "3x9 stale _x2 0x40"}, 20, fires=False),  # anew
    # As seldom as it is tried: every five minutes.
    Case("TiphysEventsFailing", {FAILURES: SELDOM, DELIVERED: "7x90"}, 60),
    Case("TiphysEventsFailing", {FAILURES: SELDOM, DELIVERED: "7x90"}, 25, fires=False),
    Case("TiphysEventsFailing", {FAILURES: SELDOM, DELIVERED: "7+1x90"}, 60, fires=False),
    Case("TiphysEventsFailing", {FAILURES: "0x9 3x90", DELIVERED: "7x90"}, 60, fires=False),
    Case("TiphysEventsFailing", {FAILURES: "3x90", DELIVERED: "7x90"}, 60, fires=False),
    Case("TiphysStateUnknown", WELL, 30, fires=False),
    Case("TiphysStateUnknown", {**WELL, FREEZE % A: "0x5 stale _x40"}, 21),
    Case("TiphysStateUnknown", {**WELL, FREEZE % A: "0x5 stale _x2 0x40"}, 8, fires=False),
    Case("TiphysStateUnknown", {**WELL, LAG: "0x5 stale _x40"}, 21),
    # Then TiphysGatewayDown says it.
    Case("TiphysStateUnknown", {LAG: "0x60", GATEWAY: "0x60", AGENTS: "1x60"}, 30, fires=False),
]


def written(case: Case, number: int, absent: set[str]) -> dict[str, Any]:
    """Write a case as promtool reads it, without what this mode has not."""
    fired = [{"labels": "{}", "value": 1}] if case.fires else []
    expression = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    return {
        "name": f"{number}: {case.alert} at {case.minute} m of {dict(case.series)}",
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values}
            for name, values in case.series.items()
            if name not in absent
        ],
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{case.minute}m", "exp_samples": fired}
        ],
    }


def promtool(folder: Path, *argv: str) -> str:
    """Ask Prometheus' tool; needs Debian's package prometheus."""
    done = subprocess.run(
        ["promtool", *argv], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["split", "single"])
def test_alerts_fire_when_they_should_and_not_before(
    render: Render, mode: str, tmp_path: Path
) -> None:
    spec = one(render(mode, {"monitoring": {"enabled": True}}), "PrometheusRule", "tiphys")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    absent = {AGENTS} if mode == "single" else set[str]()
    tests = [written(case, number, absent) for number, case in enumerate(CASES)]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool(tmp_path, "check", "rules", "rules.yaml")
    promtool(tmp_path, "test", "rules", "tests.yaml")


def test_every_alert_says_how_grave_it_is_and_what_to_do(render: Render) -> None:
    for mode in ("split", "single"):
        spec = one(render(mode, {"monitoring": {"enabled": True}}), "PrometheusRule", "tiphys")
        for rule in spec["spec"]["groups"][0]["rules"]:
            assert rule["labels"]["severity"] in {"critical", "warning", "none"}
            assert rule["annotations"]["summary"]
            assert rule["annotations"].get("description") or rule["alert"] == "TiphysWatchdog"


def test_a_run_that_is_open_too_long_could_not_be_one_that_ends_well(render: Render) -> None:
    objects = render("split", {"monitoring": {"enabled": True}})
    rules = one(objects, "PrometheusRule", "tiphys")["spec"]["groups"][0]["rules"]
    (rule,) = (rule for rule in rules if rule["alert"] == "TiphysRunOpenTooLong")
    limit = int(rule["expr"].rpartition("> ")[2])
    for template in (thing for thing in objects if thing["kind"] == "WorkflowTemplate"):
        spec = template["spec"]
        rollback = max(step.get("activeDeadlineSeconds", 0) for step in spec["templates"])
        longest = NOT_AFTER_SECONDS + spec["activeDeadlineSeconds"] + rollback
        assert longest < limit < 2 * longest

"""docs/alertmanager.yaml routes as DESIGN's handing over says, by Alertmanager's own tool."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import Render, one

from tiphys.policies.correlation import OWN_LABEL
from tiphys.service.app import WEBHOOK_PATH
from tiphys.service.paging import KINDS
from tiphys.service.policy_file import read_policy

PAGE = Path(__file__).parents[2] / "docs" / "alertmanager.yaml"
CONFIG: dict[str, Any] = yaml.safe_load(PAGE.read_text())
PEOPLE = [route for route in CONFIG["route"]["routes"] if route["receiver"] == "people"]


def amtool(*argv: str) -> str:
    """Ask Alertmanager's tool; needs Debian's package prometheus-alertmanager."""
    done = subprocess.run(
        ["amtool", *argv], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_alertmanager_takes_it() -> None:
    assert "SUCCESS" in amtool("check-config", str(PAGE))


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"alertname": "KubePodCrashLooping", "severity": "warning"}, "tiphys,people"),
        ({"alertname": "KubeAPIDown", "severity": "critical"}, "tiphys,people"),
        ({"alertname": "NoSeverity"}, "tiphys,people"),
        *(
            ({"alertname": name, "severity": "critical", OWN_LABEL: "inc-a"}, "people")
            for name in KINDS.values()
        ),
        ({"alertname": "TiphysLauncherDown", "severity": "critical"}, "people"),
        ({"alertname": "TiphysWatchdog", "severity": "none"}, "dead-mans-switch"),
    ],
)
def test_who_hears_of_what(labels: dict[str, str], receivers: str) -> None:
    pairs = [f"{name}={value}" for name, value in labels.items()]
    assert amtool("config", "routes", "test", f"--config.file={PAGE}", *pairs) == receivers


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def test_people_hear_at_the_deadline_and_of_tiphys_itself_at_once() -> None:
    deadlines = read_policy(None).deadlines
    waits = {route.get("matchers", ["other"])[0]: seconds(route["group_wait"]) for route in PEOPLE}
    assert waits == {
        'alertname =~ "Tiphys.*"': 0,
        'severity = "critical"': deadlines.critical_seconds,
        'severity = "info"': deadlines.info_seconds,
        "other": deadlines.warning_seconds,
    }


def test_no_page_is_swallowed() -> None:
    assert "inhibit_rules" not in CONFIG
    (to_tiphys,) = (r for r in CONFIG["route"]["routes"] if r["receiver"] == "tiphys")
    assert to_tiphys["continue"] is True
    assert "matchers" not in to_tiphys
    assert CONFIG["route"]["receiver"] == "people"


def test_it_posts_to_the_service_that_the_chart_makes(render: Render) -> None:
    (receiver,) = (r for r in CONFIG["receivers"] if r["name"] == "tiphys")
    (webhook,) = receiver["webhook_configs"]
    service = one(render("split"), "Service", "tiphys-gateway")
    (port,) = service["spec"]["ports"]
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert webhook["url"] == f"http://{host}:{port['port']}{WEBHOOK_PATH}"
    assert webhook["send_resolved"] is True


def test_the_chart_has_an_alert_for_the_dead_mans_switch(render: Render) -> None:
    rule = one(render("split", {"monitoring": {"enabled": True}}), "PrometheusRule", "tiphys")
    names = {one["alert"] for group in rule["spec"]["groups"] for one in group["rules"]}
    (route,) = (r for r in CONFIG["route"]["routes"] if r["receiver"] == "dead-mans-switch")
    assert route["matchers"] == ['alertname = "TiphysWatchdog"']
    assert "TiphysWatchdog" in names

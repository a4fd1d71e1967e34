"""Each part dies in the middle of an incident, which still ends right."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from bed import Bed
from kills import Kill, kill, kill_controller, kill_holder, next_record, pods
from kubectl import wait
from people import record
from shop import Shop

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]

PATIENCE = 360
TAKEN_OVER = 30
"""Seconds, after which a lost replica's work is somebody else's."""

Shops = Mapping[str, Shop]


def ends_right(bed: Bed, shop: Shop, wedged: str) -> dict[str, object]:
    """See an incident healed by one restart, done once."""
    subject = f"deployment {shop.namespace}/cart"
    seen = bed.tiphys.wait_for(subject, ("monitoring", "closed", "escalated"), PATIENCE)
    view = bed.tiphys.view(seen["id"])
    assert view["incident"]["outcome"] == "verified", view["incident"]["reason"]
    shop.wait_for_pods("cart", 2)
    names = {pod["metadata"]["name"] for pod in bed.kubectl.every("pods", shop.namespace)}
    assert wedged not in names
    runs = [one for one in view["timeline"] if one["event"] == "launch_intended"]
    assert len(runs) == 1, "no decided action runs twice"
    return view


def test_a_gateway_dies_before_the_alert_comes(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    wedged = shops["gateway"].wedge()
    (victim, *_) = pods(bed, "tiphys-system", component="gateway")
    kill(bed, "tiphys-system", victim)
    view = ends_right(bed, shops["gateway"], wedged)
    fired = datetime.fromisoformat(view["alerts"][0]["starts_at"])
    opened = datetime.fromisoformat(record(view, "incident_opened")["at"])
    assert (opened - fired).total_seconds() < TAKEN_OVER


def test_the_broker_dies_when_the_alert_comes(bed: Bed, shops: Shops) -> None:
    wedged = shops["broker"].wedge()
    wait(
        "the alert to fire",
        lambda: bed.query('ALERTS{alertstate="firing",namespace="e2e-broker"}'),
        PATIENCE,
    )
    kill(bed, "tiphys-system", "tiphys-nats-0")
    ends_right(bed, shops["broker"], wedged)


@pytest.fixture(scope="module")
def killed(bed: Bed, shops: Shops) -> Mapping[str, Kill]:
    """Three incidents at once, and a death in the middle of each."""
    wedged = {name: shops[name].wedge() for name in ("agents", "launcher", "argo")}
    deaths = {
        "agents": lambda: kill_holder(bed, "deployment e2e-agents/cart", "investigating", PATIENCE),
        "launcher": lambda: kill_holder(bed, "deployment e2e-launcher/cart", "running", PATIENCE),
        "argo": lambda: kill_controller(bed, "deployment e2e-argo/cart", PATIENCE),
    }
    with ThreadPoolExecutor() as threads:
        begun = {name: threads.submit(death) for name, death in deaths.items()}
    for name, pod in wedged.items():
        ends_right(bed, shops[name], pod)
    return {name: death.result() for name, death in begun.items()}


@pytest.mark.parametrize("role", ["agents", "launcher"])
def test_who_works_on_an_incident_dies(
    bed: Bed, killed: Mapping[str, Kill], role: str, record_property: Callable[[str, object], None]
) -> None:
    death = killed[role]
    record_property(f"seconds until another took over from the {role}", death.taken_over)
    assert f"tiphys-{role}-" in death.pod
    assert death.taken_over < TAKEN_OVER
    assert next_record(bed.tiphys.view(death.incident), death.at) < TAKEN_OVER


def test_argos_controller_dies_while_the_workflow_runs(
    bed: Bed, killed: Mapping[str, Kill]
) -> None:
    death = killed["argo"]
    ended = record(bed.tiphys.view(death.incident), "run_ended")
    assert datetime.fromisoformat(ended["at"]) > death.at, "it died in the middle"

"""Several equal Prometheus tell one alert: one episode, whoever says what when."""

from typing import Any

import pytest

from tiphys.policies.correlation import TELLERS, identity
from tiphys.service.settings import Settings

FIRST = {"prometheus": "monitoring/k8s", "prometheus_replica": "prometheus-k8s-0"}
SECOND = {"prometheus": "monitoring/k8s", "prometheus_replica": "prometheus-k8s-1"}


def begun(one: dict[str, Any], minute: int) -> dict[str, Any]:
    return {**one, "startsAt": f"2026-11-20T20:{minute}:00Z"}


async def sent(ingest: Any, *bodies: bytes) -> None:
    for body in bodies:
        assert (await ingest.post(body)).status_code == 200
    await ingest.drain()


async def test_one_alert_of_two_prometheus_is_one_episode(ingest, alert, post_of) -> None:
    first, second = begun(alert(**FIRST), 38), begun(alert(**SECOND), 39)
    await sent(ingest, post_of(first, second), post_of(first, second))
    [row] = await ingest.episodes()
    assert row.open
    assert row.repeats == 3
    assert len(await ingest.incidents()) == 1


async def test_it_is_over_when_who_spoke_last_says_so(ingest, alert, post_of) -> None:
    await sent(ingest, post_of(alert(**FIRST), alert(**SECOND)))
    await sent(ingest, post_of(alert(status="resolved", **FIRST)))
    [row] = await ingest.episodes()
    assert row.open, "the other one still sees it"
    await sent(ingest, post_of(alert(status="resolved", **SECOND)))
    [row] = await ingest.episodes()
    assert not row.open


async def test_both_ends_in_one_post_are_an_end(ingest, alert, post_of) -> None:
    await sent(ingest, post_of(alert(**FIRST), alert(**SECOND)))
    over = [alert(status="resolved", **labels) for labels in (FIRST, SECOND)]
    await sent(ingest, post_of(*over))
    [row] = await ingest.episodes()
    assert not row.open


async def test_alerts_that_differ_in_more_stay_two(ingest, alert, post_of) -> None:
    await sent(ingest, post_of(alert(**FIRST), alert(**{**SECOND, "container": "other"})))
    assert len(await ingest.episodes()) == 2


def test_without_such_a_label_the_fingerprint_stays_alertmanagers() -> None:
    assert identity({"alertname": "A"}, "feed", TELLERS) == ("feed", "")
    assert identity({"alertname": "A", **FIRST}, "feed", frozenset()) == ("feed", "")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("", sorted(TELLERS)), ("none", []), ("rack, side", ["rack", "side"])],
    ids=["default", "none", "own"],
)
def test_which_labels_tell_only_who_told_it(
    given: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPHYS_TELLER_LABELS", given)
    assert sorted(Settings().tellers) == wanted

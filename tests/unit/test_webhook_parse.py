"""One webhook body becomes messages, or a sentence that says what is wrong with it."""

import contextlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.policies.correlation import fingerprint
from tiphys.policies.model import Alert, AlertStatus
from tiphys.service.errors import BadInputError
from tiphys.service.webhook_post import MAX_ANNOTATION, Origin, Post, TooLargeError, read

POSTS = Path(__file__).parents[1] / "data" / "alertmanager" / "webhook_posts.jsonl"
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
GOOD = {"status": "firing", "labels": {"alertname": "A"}, "startsAt": "2026-11-20T20:38:59Z"}


def parse(content: bytes) -> Post:
    return read(content, Origin("prod", NOW), delivery="d1")


def body(**fields: Any) -> bytes:
    return json.dumps({"version": "4", "alerts": [GOOD], **fields}).encode()


def only(content: bytes) -> Alert:
    (message,) = parse(content).messages
    return Alert.model_validate_json(message.body)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (body()[:-1], "not JSON"),
        (b'{"version": "4", "alerts": [], "x": "\\ud800"', "not JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"alerts": []}', "no `version` at `$`"),
        (body(version="3"), "webhook version '3' at `$.version`"),
        (body(version=4), "webhook version 4 at `$.version`"),
        (b'{"version": "5", "groups": []}', "webhook version '5' at `$.version`"),
        (body(alerts=7), "Expected `array`, got `int` - at `$.alerts`"),
        (body(alerts=None), "Expected `array`, got `null` - at `$.alerts`"),
        (body(alerts=[{**GOOD, "status": "sad"}]), "'sad' - at `$.alerts[0].status`"),
        (body(alerts=[GOOD, {"status": "firing"}]), "`labels` - at `$.alerts[1]`"),
        (body(alerts=[{**GOOD, "labels": {"a": 1}}]), "at `$.alerts[0].labels[...]`"),
        (body(alerts=[{**GOOD, "startsAt": "soon"}]), "at `$.alerts[0].startsAt`"),
        (body(alerts=[{**GOOD, "startsAt": "2026-11-20T20:38:59"}]), "timezone"),
        (body(alerts=[{**GOOD, "startsAt": "9999-12-31T23:59:59-05:00"}]), "out of range"),
        (b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
    ],
)
def test_what_cannot_be_read_says_what_and_where(content: bytes, sentence: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(sentence)):
        parse(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(BadInputError):  # any other exception would be a 503 for ever
        parse(content)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_KEYS = st.sampled_from(["status", "labels", "startsAt", "endsAt", "annotations", "fingerprint"])


@given(st.dictionaries(_KEYS, _JSON, max_size=3))
def test_what_is_accepted_is_an_alert(fields: dict[str, Any]) -> None:
    """Nothing passes the webhook that intake could not read: it would be a dead letter."""
    try:
        post = parse(body(alerts=[{**GOOD, **fields}]))
    except BadInputError:
        return
    for message in post.messages:
        Alert.model_validate_json(message.body)


def test_the_alerts_own_cluster_wins() -> None:
    assert only(body()).cluster == "prod"
    assert only(body(alerts=[{**GOOD, "labels": {"cluster": "far"}}])).cluster == "far"
    assert only(body(alerts=[{**GOOD, "labels": {"cluster": ""}}])).cluster == "prod"


def test_enrichment() -> None:
    given_alert = {
        **GOOD,
        "startsAt": "2026-11-20T21:38:59.123456789+01:00",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "annotations": {"long": "x" * (MAX_ANNOTATION + 1)},
    }
    seen = only(body(alerts=[given_alert], receiver="hook", groupKey="{}", externalURL="http://a"))
    assert seen.starts_at == datetime(2026, 11, 20, 20, 38, 59, 123457, tzinfo=UTC) or (
        seen.starts_at == datetime(2026, 11, 20, 20, 38, 59, 123456, tzinfo=UTC)
    )
    assert seen.ends_at is None
    assert (seen.receiver, seen.group_key, seen.source) == ("hook", "{}", "http://a")
    assert seen.generator_url == "http://prometheus/graph"
    assert seen.received_at == NOW
    assert seen.fingerprint == fingerprint({"alertname": "A"})
    assert seen.annotations["long"] == "x" * MAX_ANNOTATION + " (cut)"


@pytest.mark.parametrize("odd", ["", "has space", "x" * 200, "nul\0"])
def test_an_unusable_fingerprint_is_computed(odd: str) -> None:
    computed = only(body(alerts=[{**GOOD, "fingerprint": odd}])).fingerprint
    assert computed == fingerprint({"alertname": "A"})
    assert only(body(alerts=[{**GOOD, "fingerprint": "cafe01"}])).fingerprint == "cafe01"


def test_no_start_is_a_stable_start() -> None:
    zero = {**GOOD, "startsAt": "0001-01-01T00:00:00Z"}
    assert only(body(alerts=[zero])).id == only(body(alerts=[zero])).id


def test_the_message_id_tells_alert_and_delivery() -> None:
    resolved = {**GOOD, "status": "resolved"}
    post = parse(body(alerts=[GOOD, GOOD, resolved], truncatedAlerts=2))
    first, twin, ended = post.messages
    assert first.id == twin.id != ended.id
    assert first.id.endswith(".d1")
    assert (first.subject, ended.subject) == ("tiphys.alerts.firing", "tiphys.alerts.resolved")
    assert (post.firing, post.resolved, post.truncated) == (2, 1, 2)


def test_one_alert_too_large_for_the_broker() -> None:
    large = {**GOOD, "labels": {"a": "x" * (600 << 10)}}
    with pytest.raises(TooLargeError, match=r"`\$\.alerts\[1\]`"):
        parse(body(alerts=[GOOD, large]))


def test_the_real_posts() -> None:
    posts = [parse(line.encode()) for line in POSTS.read_text().splitlines()]
    assert sum(post.firing for post in posts) == 52
    assert sum(post.resolved for post in posts) == 1
    alerts = [Alert.model_validate_json(m.body) for post in posts for m in post.messages]
    assert {a.cluster for a in alerts} >= {"prod", "cluster1", "kubernetes"}
    ended = [a for a in alerts if a.status is AlertStatus.RESOLVED]
    assert all(a.ends_at for a in ended)
    assert not any(a.ends_at for a in alerts if a.status is AlertStatus.FIRING)

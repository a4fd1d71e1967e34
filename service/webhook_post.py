"""One Alertmanager webhook body, version 4, made into messages for the stream; no I/O.

Source: Alertmanager's documentation, `<webhook_config>`. Fields we do not know are accepted.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from tiphys.policies.correlation import TELLERS, alert_id, fingerprint, identity
from tiphys.policies.model import AlertStatus
from tiphys.service.errors import BadInputError
from tiphys.service.flights import Message

MAX_BODY = 4 << 20
"""Bytes of one post; a thousand alerts take about one million."""
MAX_ALERT = 512 << 10
"""Bytes of one alert in the stream; NATS' default refuses messages of 1 MiB."""
MAX_ANNOTATION = 16 << 10
"""Characters of one annotation; the rest is cut, for a long text must not lose an alert."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINGERPRINT = re.compile(r"[0-9A-Za-z_-]{1,128}")
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Alert(msgspec.Struct, rename="camel"):
    status: AlertStatus
    labels: dict[str, str]
    starts_at: _Time
    ends_at: _Time | None = None
    annotations: dict[str, str] | None = None
    generator_url: str = msgspec.field(name="generatorURL", default="")
    fingerprint: str = ""


class _Post(msgspec.Struct, rename="camel"):
    alerts: list[_Alert]
    version: str | int | None = None
    receiver: str = ""
    group_key: str = ""
    external_url: str = msgspec.field(name="externalURL", default="")
    truncated_alerts: int = 0


class _Version(msgspec.Struct):
    version: str | int | None = None


_posts = msgspec.json.Decoder(_Post)
_versions = msgspec.json.Decoder(_Version)
_encoder = msgspec.json.Encoder(decimal_format="string")


@dataclass(frozen=True)
class Post:
    """What one body said."""

    messages: tuple[Message, ...]
    """One for each alert; the same alert twice has the same id."""
    firing: int
    resolved: int
    truncated: int
    """How many alerts Alertmanager's `max_alerts` kept from us."""


class TooLargeError(BadInputError):
    """This is too large."""


@dataclass(frozen=True)
class Origin:
    """What every alert of a post is given, and told apart by."""

    cluster: str
    """The name for alerts that bring none."""
    received_at: datetime
    tellers: frozenset[str] = TELLERS
    """Labels that say only who told an alert: it is the same one without them."""


def read(body: bytes, origin: Origin, *, delivery: str) -> Post:
    """Decode and enrich one body; raises `BadInputError` saying what is wrong and where.

    `delivery` marks this post in each message's id: see `webhook.Deliveries`.
    """
    post = _decode(body)
    messages: list[Message] = []
    firing = 0
    for index, alert in enumerate(post.alerts):
        try:
            fields = _enrich(alert, post, origin)
        except OverflowError:
            raise BadInputError(f"a time at `$.alerts[{index}]` is out of range") from None
        encoded = _encoder.encode(fields)
        if len(encoded) > MAX_ALERT:
            raise TooLargeError(f"the alert at `$.alerts[{index}]` has {len(encoded)} bytes")
        firing += alert.status is AlertStatus.FIRING
        subject = f"tiphys.alerts.{alert.status.value}"
        messages.append(Message(f"{fields['id']}.{delivery}", subject, encoded))
    return Post(
        messages=tuple(messages),
        firing=firing,
        resolved=len(messages) - firing,
        truncated=post.truncated_alerts,
    )


def _decode(body: bytes) -> _Post:
    try:
        post = _posts.decode(body)
    except (msgspec.ValidationError, RecursionError) as error:
        _check_version(body)
        raise BadInputError(f"not an Alertmanager webhook: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"not JSON: {error}") from None
    _demand_version_4(post.version)
    return post


def _check_version(body: bytes) -> None:
    """Another version may well have other fields: then that is what is wrong."""
    try:
        _demand_version_4(_versions.decode(body).version)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return


def _demand_version_4(version: str | int | None) -> None:
    if version is None:
        raise BadInputError("no `version` at `$`; an Alertmanager webhook of version 4 has one")
    if version != "4":
        raise BadInputError(f"webhook version {version!r} at `$.version`; only '4' is understood")


def _enrich(alert: _Alert, post: _Post, origin: Origin) -> dict[str, Any]:
    own_cluster = alert.labels.get("cluster") or origin.cluster
    mark = alert.fingerprint
    if not _FINGERPRINT.fullmatch(mark):
        mark = fingerprint(alert.labels)
    starts_at = _utc(alert.starts_at) or _EPOCH
    known_by, teller = identity(alert.labels, mark, origin.tellers)
    return {
        "id": alert_id(own_cluster, mark, starts_at, alert.status),
        "cluster": own_cluster,
        "fingerprint": known_by,
        "status": alert.status,
        "starts_at": starts_at,
        "ends_at": _utc(alert.ends_at),
        "labels": alert.labels,
        "annotations": {k: _cut(v) for k, v in (alert.annotations or {}).items()},
        "generator_url": alert.generator_url,
        "receiver": post.receiver,
        "group_key": post.group_key,
        "source": post.external_url,
        "received_at": origin.received_at,
        **({"teller": teller} if teller else {}),
    }


def _utc(at: datetime | None) -> datetime | None:
    """Give a time in UTC, None for Go's zero time, which means that there is none."""
    return None if at is None or at.year < 1970 else at.astimezone(UTC)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ANNOTATION else text[:MAX_ANNOTATION] + " (cut)"

"""One record as a CloudEvent, and its signature, byte for byte as their specifications say.

Sources: CloudEvents 1.0.2, section "Context Attributes", and its JSON format's "Envelope"; Standard
Webhooks 1.0.0, sections "Signature scheme" and "Webhook headers". Pure.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from tiphys.policies.model import Json
from tiphys.policies.plan import canonical
from tiphys.service.records import Record

TYPE_PREFIX = "io.tiphys."
PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64
"""Bytes of a secret, by Standard Webhooks."""


class SecretUnusableError(Exception):
    """A secret is `whsec_` and the base64 of 24 to 64 random bytes."""


class Signer:
    """Signs with one secret, or with a new and an old one while receivers change over."""

    def __init__(self, secrets: str) -> None:
        """`secrets` are separated by spaces; raises `SecretUnusableError`, never naming them."""
        self._keys: Sequence[bytes] = [_key(secret) for secret in secrets.split()]
        if not self._keys:
            raise SecretUnusableError

    def headers(self, message: str, now: datetime, body: bytes) -> dict[str, str]:
        """Give the three headers for one attempt; `message` stays the same over all attempts."""
        timestamp = str(int(now.timestamp()))
        content = b".".join((message.encode(), timestamp.encode(), body))
        signatures = (hmac.new(key, content, hashlib.sha256).digest() for key in self._keys)
        return {
            "webhook-id": message,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(
                f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
            ),
        }


def cloud_event(record: Record, source: str) -> bytes:
    """Give the structured JSON of a record; the same bytes each time."""
    event: dict[str, Json] = {
        "specversion": "1.0",
        "id": record.hash,
        "source": source,
        "type": f"{TYPE_PREFIX}{record.event}",
        "time": record.at,
        "sequence": f"{record.seq:016d}",
        "datacontenttype": "application/json",
        "data": {"actor": record.actor, "body": record.body},
    }
    if record.incident_id:
        event["subject"] = record.incident_id
    return canonical(event)


def source_of(cluster: str) -> str:
    """Name this installation as a URI reference."""
    return f"/tiphys/{quote(cluster, safe='')}"


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretUnusableError from None
    if not secret.startswith(PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise SecretUnusableError
    return key

"""From a plan to the one name its Workflow can have; every step recomputes it.

Invariant: equal plans have equal bytes, so submitting twice is one Workflow, and a Workflow's name
proves which plan it carries.
"""

import base64
import hashlib
import json

from pydantic import BaseModel, ValidationError

from tiphys.policies.model import Json, Plan

MAX_ENCODED_PLAN = 16_384
"""Characters; the admission policy refuses more."""


class PlanUnreadableError(Exception):
    """The plan parameter is not a plan."""


def canonical(value: BaseModel | Json) -> bytes:
    """Give the one JSON text of a value: keys sorted, no spaces, UTF-8, NaN refused."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: BaseModel | Json) -> str:
    """Give the SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def encode(plan: Plan) -> str:
    """Give the plan as the base64url parameter (no padding) that travels to every step."""
    return base64.urlsafe_b64encode(canonical(plan)).rstrip(b"=").decode()


def decode(parameter: str) -> Plan:
    """Read the parameter back; raises `PlanUnreadableError` on anything but a canonical plan."""
    try:
        raw = base64.b64decode(parameter + "=" * (-len(parameter) % 4), b"-_", validate=True)
        plan = Plan.model_validate_json(raw)
    except (ValueError, ValidationError) as error:
        raise PlanUnreadableError(f"the plan parameter is not a plan: {error}") from error
    if encode(plan) != parameter:  # base64 too has more than one spelling
        raise PlanUnreadableError("the plan parameter is not in canonical form")
    return plan


def short_digest(plan: Plan) -> str:
    """Give the first 200 bits of the plan's SHA-256 in base32: 40 of `a-z2-7`."""
    return base64.b32encode(hashlib.sha256(canonical(plan)).digest()[:25]).decode().lower()


def workflow_name(plan: Plan) -> str:
    """Give the only name the plan's Workflow may have, as admission demands it."""
    return f"tiphys-{short_digest(plan)}"


def signed_message(plan_digest: str, not_after: str) -> bytes:
    """Give the bytes that the launcher signs (Ed25519) and every step verifies."""
    return f"tiphys/launch/v1\n{plan_digest}\n{not_after}".encode()

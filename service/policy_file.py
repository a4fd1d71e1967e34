"""Reads the policy that is in force and its calendars, against the catalogue that exists."""

from datetime import UTC, datetime
from pathlib import Path

from tiphys.policies.parse import PolicyUnreadableError, built_in, load
from tiphys.policies.policy import Policy
from tiphys.service.calendars import with_calendars
from tiphys.service.errors import BadInputError
from tiphys.workflow_templates import catalogue


def read_policy(path: Path | None) -> Policy:
    """Read a policy file, or the built-in one; raises `BadInputError` naming file, line and key."""
    if path is None:
        return built_in()
    try:
        policy = load(path, actions=[action.name for action in catalogue.every()])
    except PolicyUnreadableError as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
    return with_calendars(policy, path.parent, datetime.now(UTC))

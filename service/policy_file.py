"""Reads the policy that is in force and its calendars, against the catalogue that exists."""

from datetime import UTC, datetime
from pathlib import Path

from tiphys.policies.parse import PolicyFile, PolicyUnreadableError, built_in, load_untested
from tiphys.policies.policy import Policy
from tiphys.service.calendars import with_calendars
from tiphys.service.errors import BadInputError
from tiphys.workflow_templates import catalogue


def read_policy(path: Path | None) -> Policy:
    """Read a policy that passes its own tests, or the built-in one.

    Raises `BadInputError` naming file, line and key.
    """
    if path is None:
        return built_in()
    try:
        policy = read_untested(path).tested()
    except PolicyUnreadableError as error:
        raise BadInputError(str(error)) from error
    return with_calendars(policy, path.parent, datetime.now(UTC))


def read_untested(path: Path) -> PolicyFile:
    """Read a policy whose tests are the caller's to run; raises `BadInputError`."""
    try:
        return load_untested(path, actions=[action.name for action in catalogue.every()])
    except PolicyUnreadableError as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error

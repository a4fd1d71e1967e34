"""Reads the policy that is in force and its calendars, against the catalogue that exists."""

from datetime import UTC, datetime
from pathlib import Path

from tiphys.policies.parse import PolicyFile, PolicyUnreadableError, built_in, load_untested
from tiphys.policies.policy import Policy
from tiphys.service.calendars import CalendarsAt, with_calendars
from tiphys.service.errors import BadInputError
from tiphys.workflow_templates import catalogue


def read_policy(path: Path | None) -> Policy:
    """Read a policy that passes its own tests, or the built-in one.

    Raises `BadInputError` naming file, line and key.
    """
    if path is None:
        return built_in()
    file = read_untested(path)
    around = CalendarsAt(file.policy, path.parent)
    try:
        policy = file.tested(around.readable)
    except PolicyUnreadableError as error:
        raise BadInputError("\n".join([*error.problems, *left_out(file, around)])) from error
    return with_calendars(policy, path.parent, datetime.now(UTC))


def read_for_any_time(path: Path) -> CalendarsAt:
    """Read a policy for old decisions: its calendars are read out around each one's time."""
    return CalendarsAt(read_policy(path), path.parent)


def left_out(file: PolicyFile, around: CalendarsAt) -> list[str]:
    """Say which calendars had no say in the tests that name their time, because nobody can read."""
    times = [case.at for case in file.cases if case.timed]
    said = [problem for at in times for problem in around.problems(at)]
    return [f"{one}; the tests were run as if it had no event" for one in dict.fromkeys(said)]


def read_untested(path: Path) -> PolicyFile:
    """Read a policy whose tests are the caller's to run; raises `BadInputError`."""
    try:
        return load_untested(path, actions=[action.name for action in catalogue.every()])
    except PolicyUnreadableError as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error

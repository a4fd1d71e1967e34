"""Whose a target is, read from its annotation or from who owns its replicas."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.workflow_templates import mark

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, B = "a" * 40, "b" * 40


def owned(*managers: str, field: str = "f:replicas") -> Any:
    """Entries as `scale` leaves them: without a time."""
    entries = [{"manager": name, "fieldsV1": {"f:spec": {field: {}}}} for name in managers]
    return {"metadata": {"managedFields": entries}}


def claimed(age: timedelta) -> Any:
    return {"firstTimestamp": (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")}


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (owned(f"tiphys-{A}"), f"{A}.act"),
        (owned(f"tiphys-{A}.undone"), f"{A}.undone"),
        (owned("kubectl-edit"), ""),
        (owned(f"tiphys-{A}", "argocd"), ""),
        (owned("argocd", f"tiphys-{A}"), ""),
        (owned(f"tiphys-{A}", field="f:paused"), ""),
        ({"metadata": {}}, ""),
    ],
)
def test_the_sole_owner_of_the_replicas_is_the_mark(target: Any, text: str) -> None:
    assert mark.by_manager(target) == text


@pytest.mark.parametrize(
    ("target", "run"),
    [
        ({"metadata": {"annotations": {mark.ANNOTATION: f"{A}.act"}}}, A),
        ({"metadata": {"annotations": {mark.ANNOTATION: f"{A}.kept"}}}, None),
        ({"metadata": {"annotations": {mark.ANNOTATION: f"{A}.undone"}}}, None),
        (owned(f"tiphys-{B}"), B),
        (owned(f"tiphys-{B}.undone"), None),
        ({"metadata": {}}, None),
    ],
)
def test_an_unfinished_mark_names_its_run(target: Any, run: str | None) -> None:
    assert mark.unfinished(target) == run


ANNOTATED = {"metadata": {"annotations": {mark.ANNOTATION: f"{A}.act"}}}
LONG_AGO = timedelta(hours=2)


@pytest.mark.parametrize(
    ("target", "claim", "open_still"),
    [
        (ANNOTATED, None, True),
        (ANNOTATED, claimed(LONG_AGO), True),
        (owned(f"tiphys-{A}"), claimed(timedelta(minutes=5)), True),
        (owned(f"tiphys-{A}"), claimed(LONG_AGO), False),
        (owned(f"tiphys-{A}"), None, False),
    ],
)
def test_a_field_manager_counts_as_long_as_its_claim(
    target: Any, claim: Any, open_still: bool
) -> None:
    """It stays on the object for ever, without a time; an annotation is ended by its run."""
    assert mark.may_be_under_way(target, A, claim, NOW) is open_still

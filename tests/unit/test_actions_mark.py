"""Whose a target is, read from its annotation or from who owns its replicas."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.workflow_templates import mark

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, B = "a" * 40, "b" * 40


def owned(*managers: str, age: timedelta = timedelta(0), field: str = "f:replicas") -> Any:
    at = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = [
        {"manager": manager, "time": at, "fieldsV1": {"f:spec": {field: {}}}}
        for manager in managers
    ]
    return {"metadata": {"managedFields": entries}}


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (owned(f"tiphys-{A}"), f"{A}.act"),
        (owned(f"tiphys-{A}.undone"), f"{A}.undone"),
        (owned(f"tiphys-{A}", age=timedelta(hours=2)), f"{A}.kept"),
        (owned(f"tiphys-{A}.undone", age=timedelta(hours=2)), f"{A}.undone"),
        (owned("kubectl-edit"), ""),
        (owned(f"tiphys-{A}", "argocd"), ""),
        (owned("argocd", f"tiphys-{A}"), ""),
        (owned(f"tiphys-{A}", field="f:paused"), ""),
        ({"metadata": {}}, ""),
    ],
)
def test_the_sole_owner_of_the_replicas_is_the_mark(target: Any, text: str) -> None:
    assert mark.by_manager(target, NOW) == text


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
    assert mark.unfinished(target, NOW) == run

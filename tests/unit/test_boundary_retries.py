"""How often a template may have its rollback tried again, as admission judges it in the sandbox."""

from copy import deepcopy
from typing import Any

import pytest

from tiphys.sandbox import admission
from tiphys.sandbox.store import ApiError, Store
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.render import RenderSettings, workflow_template

PUBLISHER = "sandbox-admin"


def published(retries: Any) -> None:
    """Publish restart-pod with this retryStrategy at its rollback; raises `ApiError`."""
    store = Store()
    store.create({"kind": "Namespace", "metadata": {"name": "tiphys-actions"}})
    admission.install(store)
    settings = RenderSettings(image="x", public_key="0" * 64)
    made: Any = deepcopy(workflow_template(settings, find("restart-pod")))
    [rollback] = [one for one in made["spec"]["templates"] if one["name"] == "rollback"]
    if retries is not None:
        rollback["retryStrategy"] = rollback["retryStrategy"] | retries
        rollback["retryStrategy"] = {k: v for k, v in rollback["retryStrategy"].items() if v != ()}
    store.create(made, user=PUBLISHER)


@pytest.mark.parametrize("retries", [None, {"limit": "0"}, {"limit": 9}, {"expression": ()}])
def test_a_few_times_are_let_through(retries: Any) -> None:
    published(retries)


@pytest.mark.parametrize(
    "retries",
    [
        {"limit": ()},
        {"limit": "10"},
        {"limit": 10},
        {"limit": "-1"},
        {"limit": ""},
        {"limit": "{{workflow.name}}"},
        {"affinity": {"nodeAntiAffinity": {}}},
    ],
)
def test_without_end_is_refused(retries: Any) -> None:
    with pytest.raises(ApiError, match="a rollback is tried again nine times at most"):
        published(retries)

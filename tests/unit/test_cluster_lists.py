"""A list that comes in pages is given whole, or not at all."""

from typing import Any

import pytest

from tiphys.workflow_templates.cluster import Cluster, Gone, Unreachable

Obj = dict[str, Any]


class Pages(Cluster):
    """An API server that answers a list page by page; after the last that it knows there is none.

    `more`: the last one says that another follows.
    """

    def __init__(self, *pages: list[str], more: bool = False) -> None:
        self._pages = pages
        self._more = more

    def _ask(self, method: str, path: str, **how: Any) -> Obj:
        del method, how
        number = int(path.partition("&continue=")[2] or 0)
        if number == len(self._pages):
            raise Gone("410")
        following = str(number + 1) if self._more or number + 1 < len(self._pages) else ""
        items = [{"metadata": {"name": name}} for name in self._pages[number]]
        return {"metadata": {"continue": following}, "items": items}


def names(cluster: Cluster) -> list[Any]:
    found: Any = cluster.list("v1", "Pod", "shop")
    return [one["metadata"]["name"] for one in found]


def test_every_page_is_read() -> None:
    assert names(Pages(["a", "b"], ["c"])) == ["a", "b", "c"]


def test_a_kind_that_is_not_served_has_none() -> None:
    assert names(Pages()) == []


def test_a_list_that_was_forgotten_half_way_is_none() -> None:
    with pytest.raises(Unreachable, match="the list changed while it was read"):
        names(Pages(["a", "b"], more=True))

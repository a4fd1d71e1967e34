"""Following a list: from a resourceVersion on, with bookmarks, until it is too old."""

from collections.abc import Iterator
from itertools import islice

from tiphys.service.conform.wire import Json, Wire, place, place_of
from tiphys.service.conform.worlds import World


def config_map(namespace: str, name: str, **labels: str) -> Json:
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}}


def told(events: Iterator[Json], count: int) -> list[tuple[str, str]]:
    return [(e["type"], e["object"]["metadata"]["name"]) for e in islice(events, count)]


def maps(namespace: str) -> str:
    return place("v1", "ConfigMap", namespace)


def version(wire: Wire, path: str) -> str:
    return str(wire.get(path)["metadata"]["resourceVersion"])


def test_a_watch_goes_on_where_the_list_ended(world: World) -> None:
    space = world.namespace()
    world.wire.create(config_map(space, "before"))
    at = version(world.wire, maps(space))
    made = world.wire.create(config_map(space, "after"))
    world.wire.patch(place_of(made), {"data": {"a": "b"}})
    world.wire.delete(place_of(made))
    selector = "metadata.name=after"
    query = {"resourceVersion": at, "fieldSelector": selector, "timeoutSeconds": "20"}
    with world.wire.watch(maps(space), **query) as events:
        assert told(events, 3) == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")]


def test_an_object_enters_and_leaves_a_selector(world: World) -> None:
    space = world.namespace()
    at = version(world.wire, maps(space))
    made = world.wire.create(config_map(space, "one"))
    world.wire.patch(place_of(made), {"metadata": {"labels": {"in": "yes"}}})
    world.wire.patch(place_of(made), {"metadata": {"labels": {"in": None}}})
    query = {"resourceVersion": at, "labelSelector": "in=yes", "timeoutSeconds": "20"}
    with world.wire.watch(maps(space), **query) as events:
        assert told(events, 2) == [("ADDED", "one"), ("DELETED", "one")]


def test_a_bookmark_says_how_far_a_quiet_watch_has_come(world: World) -> None:
    space = world.namespace()
    query = {"resourceVersion": version(world.wire, maps(space)), "allowWatchBookmarks": "true"}
    marks: list[Json] = []
    elsewhere = world.namespace()
    for seconds in ("4", "10", "20"):  # a server sends them about when it ends a watch, or not
        if marks:
            break
        with world.wire.watch(maps(space), timeoutSeconds=seconds, **query) as events:
            # There must be something to tell: the resource has moved, though not in this namespace.
            world.wire.create(config_map(elsewhere, f"for-{seconds}"))
            marks = [event for event in events if event["type"] == "BOOKMARK"]
    assert marks, "three watches ended without a bookmark"
    at = marks[-1]["object"]["metadata"]["resourceVersion"]
    assert int(at) >= int(query["resourceVersion"])
    made = world.wire.create(config_map(space, "later"))
    with world.wire.watch(maps(space), resourceVersion=at, timeoutSeconds="20") as events:
        assert told(events, 1) == [("ADDED", made["metadata"]["name"])]


def test_a_watch_from_too_long_ago_is_told_410(world: World) -> None:
    space = world.namespace()
    with world.wire.watch(maps(space), resourceVersion="1", timeoutSeconds="20") as events:
        first = next(events)
    assert first["type"] == "ERROR"
    assert (first["object"]["code"], first["object"]["reason"]) == (410, "Expired")

"""Attacks with the token of update-config's own pod: on ConfigMaps, and on who reads them."""

from collections.abc import Iterator
from typing import Any

from asking import JSON_PATCH, Json, Request, place
from attack import Attack, delete, merge, post
from garrison import OTHER_RUN, RUN, SHOP, VALUES, config_map, fares

WHO = "act-update-config"
DIGEST, OTHER = RUN.removeprefix("tiphys-"), OTHER_RUN.removeprefix("tiphys-")
MARK = "/metadata/annotations/tiphys.io~1run"


def set_value(
    *operations: Json,
    name: str = "fares",
    mark: str = f"{DIGEST}.act",
    namespace: str = SHOP,
) -> Request:
    """Patch a ConfigMap as update-config does, with more or other operations."""
    steps: list[Json] = [*(operations or (value("40"),))]
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    return Request("PATCH", place("v1", "configmaps", namespace, name), steps, JSON_PATCH)


def value(text: str, key: str = "pool-size") -> Json:
    """Give the operation that sets a key."""
    return {"op": "add", "path": f"/data/{key}", "value": text}


def attacks() -> Iterator[Attack]:
    """Give all of them; those on workloads are rollout-restart's, whose guard is the same."""
    yield from _values()
    yield from _fields()
    yield Attack("no mark", WHO, (set_value(mark=""),))
    forged = (f"{OTHER}.act", DIGEST, f"{DIGEST}.x")
    yield Attack("another's mark", WHO, tuple(set_value(_nothing(), mark=one) for one in forged))
    own = place("v1", "configmaps", SHOP, "fares")
    yield Attack(
        "the ConfigMap made, replaced or deleted",
        WHO,
        (
            delete(own),
            delete(place("v1", "configmaps", SHOP)),
            post(place("v1", "configmaps", SHOP), fares(SHOP, "fresh")),
            post(place("v1", "configmaps", SHOP), config_map(SHOP, "fresh")),
        ),
    )
    secret = place("v1", "secrets", SHOP, "settings")
    yield Attack("a Secret", WHO, (merge(secret, {"data": {"key": "eA=="}}),))
    yield Attack(
        "any Secret read",
        WHO,
        (Request("GET", secret), Request("GET", place("v1", "secrets", SHOP))),
        rbac_alone=True,
    )


def legitimate() -> Iterator[Attack]:
    """Give what must go through."""
    yield Attack(
        "a listed value, and the earlier one again",
        WHO,
        (
            set_value(),
            set_value(value("30")),
            set_value(value("20"), name="fares-act", mark=f"{DIGEST}.undone"),
            set_value(_nothing("40"), name="fares-act", mark=f"{DIGEST}.kept"),
        ),
    )


def _values() -> Iterator[Attack]:
    def attack(title: str, *patches: Json, **how: Any) -> Attack:
        return Attack(title, WHO, tuple(set_value(patch, **how) for patch in patches))

    ended = {"mark": f"{DIGEST}.undone"}
    unlisted = (value("41"), value(""), value("20\n30"), value("4"), value(" 40"))
    yield attack("a value that is not listed", *unlisted)
    yield attack("a key without a list", value("USD", "currency"))
    yield attack("a key that has an unlisted value", value("fast", "mode"))
    yield attack("back to a value that is not listed", value("41"), name="fares-act", **ended)
    yield attack("a second time", value("30"), name="fares-act")
    yield attack("again, after it was put back", value("30"), name="fares-undone")
    yield attack("put back twice", value("30"), name="fares-undone", **ended)
    yield attack("a value, as if it were put back", value("40"), **ended)
    yield attack("a value, as if it were verified", value("40"), mark=f"{DIGEST}.kept")
    yield attack("a ConfigMap that did not opt in", value("40"), name="fares-closed")


def _fields() -> Iterator[Attack]:
    def attack(title: str, *patches: list[Json]) -> Attack:
        return Attack(title, WHO, tuple(set_value(*steps) for steps in patches))

    def add(path: str, what: Any) -> Json:
        return {"op": "add", "path": path, "value": what}

    yield attack(
        "two keys at once, a new key, a key less",
        [value("40"), value("2", "depth")],
        [value("x", "fresh")],
        [{"op": "remove", "path": "/data/currency"}],
        [value("40"), {"op": "remove", "path": "/data/currency"}],
    )
    yield attack(
        "binary data, immutability",
        [add("/binaryData", {"x": "eA=="})],
        [add("/immutable", True)],
        [value("40"), add("/immutable", True)],
    )
    notes = "/metadata/annotations"
    yield attack(
        "its own list of values",
        [add(f"{notes}/{VALUES.replace('/', '~1')}", "20\n666")],
        [add(f"{notes}/{VALUES.replace('/', '~1')}", "20\n666"), value("666")],
        [add(f"{notes}/values.tiphys.io~1currency", "EUR\nUSD"), value("USD", "currency")],
    )
    yield attack(
        "other metadata",
        [add("/metadata/labels/x", "y")],
        [add("/metadata/labels/tiphys.io~1heal", "disabled")],
        [add(f"{notes}/x", "y")],
        [add("/metadata/finalizers", ["x/y"])],
    )


def _nothing(text: str = "20") -> Json:
    return {"op": "test", "path": "/data/pool-size", "value": text}

"""Reading and writing objects: what the service's reader and the steps' fences rest upon."""

from copy import deepcopy
from typing import Any

import pytest

from tiphys.service.conform.wire import JSON_PATCH, MERGE_PATCH, Json, place, place_of
from tiphys.service.conform.worlds import OPTED_IN, World, rule

DEPLOYMENT, MAP, POD = ("apps/v1", "Deployment"), ("v1", "ConfigMap"), ("v1", "Pod")


def config_map(namespace: str, name: str = "settings", **data: str) -> Json:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def idle(namespace: str, name: str = "cart") -> Json:
    """A Deployment without pods: only the API server and one controller know of it."""
    labels = {"app": name}
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pods}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


ROLLED_OUT = "NewReplicaSetAvailable"
"""The last reason that a controller writes of a rollout; before it there are others."""


def observed(world: World, path: str) -> Json:
    """Wait until the controller has nothing more to write."""

    def calm(found: Json) -> bool:
        seen = found.get("status", {}).get("observedGeneration")
        revised = "deployment.kubernetes.io/revision" in found["metadata"].get("annotations", {})
        conditions = {c["type"]: c["reason"] for c in found.get("status", {}).get("conditions", [])}
        done = "Available" in conditions and conditions.get("Progressing") == ROLLED_OUT
        return bool(seen == found["metadata"]["generation"] and revised and done)

    return world.until(f"{path} is observed", lambda: world.wire.get(path), calm)


@pytest.fixture
def space(world: World) -> str:
    return world.namespace()


# --- reading ------------------------------------------------------------------------------------


def test_what_is_not_there_is_404_with_a_status(world: World, space: str) -> None:
    answer = world.wire.ask("GET", place(*DEPLOYMENT, space, "none"))
    assert (answer.status, answer.reason) == (404, "NotFound")
    assert answer.message == 'deployments.apps "none" not found'
    assert answer.body["kind"] == "Status"
    absent = world.wire.ask("GET", place("nowhere.io/v1", "Thing", space))
    assert absent.status == 404


def test_items_of_a_list_leave_their_kind_out_but_for_custom_resources(
    world: World, space: str
) -> None:
    world.wire.create(config_map(space))
    listed = world.wire.get(place(*MAP, space))
    ours = [i for i in listed["items"] if i["metadata"]["name"] == "settings"]
    assert listed["kind"] == "ConfigMapList"
    assert [("kind" in i, "apiVersion" in i) for i in ours] == [(False, False)]
    template = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "any", "namespace": space},
        "spec": {"entrypoint": "a", "templates": [{"name": "a", "suspend": {}}]},
    }
    world.wire.create(template)
    [custom] = world.wire.items(place("argoproj.io/v1alpha1", "WorkflowTemplate", space))
    assert (custom["kind"], custom["apiVersion"]) == ("WorkflowTemplate", "argoproj.io/v1alpha1")


def test_a_list_comes_in_pages(world: World, space: str) -> None:
    names = [f"map-{n}" for n in range(5)]
    for name in names:
        world.wire.create({**config_map(space, name), "metadata": {
            "name": name, "namespace": space, "labels": {"page": "yes"},
        }})  # fmt: skip
    seen: list[str] = []
    query = {"limit": "2", "labelSelector": "page=yes"}
    for _ in range(3):
        page = world.wire.get(place(*MAP, space), **query)
        seen += [item["metadata"]["name"] for item in page["items"]]
        query["continue"] = page["metadata"].get("continue", "")
    assert seen == names
    assert query["continue"] == ""


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=cart", ["a", "b"]),
        ("app=cart,tier in (web,api)", ["a"]),
        ("app=cart,tier notin (web)", ["b"]),
        ("tier", ["a", "c"]),
        ("app,!tier", ["b"]),
        ("app!=cart", ["c"]),
    ],
)
def test_label_selectors(world: World, selector: str, expected: list[str]) -> None:
    space = world.namespace()
    labels = {"a": {"app": "cart", "tier": "web"}, "b": {"app": "cart"}, "c": {"tier": "db"}}
    for name, given in labels.items():
        world.wire.create({**config_map(space, name), "metadata": {
            "name": name, "namespace": space, "labels": given,
        }})  # fmt: skip
    found = world.wire.items(place(*MAP, space), labelSelector=selector)
    names = [item["metadata"]["name"] for item in found]
    assert [name for name in names if name in labels] == expected


def test_events_are_found_by_the_uid_they_are_about(world: World, space: str) -> None:
    for name, uid in (("one", "u-1"), ("two", "u-2")):
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": space, "name": name, "uid": uid}
        meta = {"name": f"{name}.happened", "namespace": space}
        said = {"reason": "Happened", "message": "so it was", "type": "Normal"}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": meta, **said}
        world.wire.create({**event, "involvedObject": about})
    found = world.wire.items(place("v1", "Event", space), fieldSelector="involvedObject.uid=u-2")
    assert [item["involvedObject"]["name"] for item in found] == ["two"]


def test_a_namespace_carries_its_name_and_its_consent_as_labels(world: World, space: str) -> None:
    labels = world.wire.get(place("v1", "Namespace", "", space))["metadata"]["labels"]
    assert labels == {**OPTED_IN, "kubernetes.io/metadata.name": space}


# --- who asks -----------------------------------------------------------------------------------


def test_without_a_good_token_401(world: World, space: str) -> None:
    for token in ("", "wrong"):
        answer = world.bearer(token).ask("GET", place(*MAP, space))
        expected = {401, 403} if token == "" else {401}
        assert answer.status in expected, answer
        assert answer.body["kind"] == "Status"
    assert (answer.reason, answer.message) == ("Unauthorized", "Unauthorized")


def test_what_no_role_grants_is_403_and_says_who_and_what(world: World, space: str) -> None:
    me = world.identity(space, "reader", rule("", "configmaps", "get"))
    world.wire.create(config_map(space, key="value"))
    path = place(*MAP, space, "settings")
    assert me.get(path)["data"] == {"key": "value"}
    user = f'User "system:serviceaccount:{space}:reader"'
    for method, verb, body in (
        ("DELETE", "delete", None),
        ("PATCH", "patch", {"data": {}}),
        ("PUT", "update", config_map(space)),
    ):
        media = MERGE_PATCH if method == "PATCH" else ""
        answer = me.ask(method, path, body, media)
        assert (answer.status, answer.reason) == (403, "Forbidden")
        assert answer.message == (
            f'configmaps "settings" is forbidden: {user} cannot {verb} resource "configmaps" '
            f'in API group "" in the namespace "{space}"'
        )
    listed = me.ask("GET", place(*MAP, space))
    assert f'{user} cannot list resource "configmaps"' in listed.message
    scaled = me.ask("GET", place(*DEPLOYMENT, space, "cart") + "/scale")
    assert f'{user} cannot get resource "deployments/scale" in API group "apps"' in scaled.message
    everywhere = me.ask("GET", place("v1", "Node"))
    assert everywhere.message.endswith("at the cluster scope")


# --- writing ------------------------------------------------------------------------------------


def test_a_taken_name_is_409_already_exists(world: World, space: str) -> None:
    world.wire.create(config_map(space))
    answer = world.wire.ask("POST", place(*MAP, space), config_map(space))
    assert (answer.status, answer.reason) == (409, "AlreadyExists")
    assert answer.message == 'configmaps "settings" already exists'


def test_a_put_over_an_object_that_moved_is_409_conflict(world: World, space: str) -> None:
    read = world.wire.create(config_map(space, key="1"))
    path = place_of(read)
    world.wire.patch(path, {"data": {"key": "2"}})
    answer = world.wire.ask("PUT", path, {**read, "data": {"key": "3"}})
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert world.wire.get(path)["data"] == {"key": "2"}


def test_a_put_with_another_uid_is_409_conflict(world: World, space: str) -> None:
    read = world.wire.create(config_map(space, key="1"))
    other = deepcopy(read)
    other["metadata"] |= {"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": ""}
    answer = world.wire.ask("PUT", place_of(read), {**other, "data": {"key": "2"}})
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert world.wire.get(place_of(read))["data"] == {"key": "1"}


def test_a_write_that_changes_nothing_is_no_new_version(world: World, space: str) -> None:
    read = world.wire.create(config_map(space, key="1"))
    again = world.wire.patch(place_of(read), {"data": {"key": "1"}}, fieldManager="somebody")
    assert again["metadata"]["resourceVersion"] == read["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    "test",
    [
        {"path": "/metadata/uid", "value": "00000000-0000-0000-0000-000000000000"},
        {"path": "/metadata/resourceVersion", "value": "1"},
        {"path": "/spec/replicas", "value": 7},
        {"path": "/spec/template/spec/containers/0/image", "value": "b:1"},
        {"path": "/metadata/annotations/tiphys.io~1run", "value": "x"},
    ],
    ids=lambda test: test["path"],
)
def test_a_json_patch_whose_test_fails_is_422_and_changes_nothing(
    world: World, test: dict[str, Any]
) -> None:
    path = place_of(world.wire.create(idle(world.namespace())))
    before = observed(world, path)
    change = [{"op": "test", **test}, {"op": "replace", "path": "/spec/replicas", "value": 3}]
    answer = world.wire.ask("PATCH", path, change, JSON_PATCH)
    assert (answer.status, answer.reason) == (422, "Invalid"), answer.message
    after = world.wire.get(path)
    assert (after["spec"], after["metadata"]["generation"]) == (
        before["spec"],
        before["metadata"]["generation"],
    )


def test_a_json_patch_whose_tests_hold_is_applied_whole(world: World, space: str) -> None:
    path = place_of(world.wire.create(idle(space)))
    meta = observed(world, path)["metadata"]
    image = "/spec/template/spec/containers/0/image"
    written = world.wire.patch(
        path,
        [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
            {"op": "replace", "path": image, "value": "a:2"},
            {"op": "add", "path": "/metadata/annotations/tiphys.io~1run", "value": "x.act"},
        ],
        JSON_PATCH,
        fieldManager="tiphys-x",
    )
    assert written["spec"]["template"]["spec"]["containers"][0]["image"] == "a:2"
    assert written["metadata"]["annotations"]["tiphys.io/run"] == "x.act"
    assert written["metadata"]["generation"] == meta["generation"] + 1
    [mine] = [e for e in written["metadata"]["managedFields"] if e["manager"] == "tiphys-x"]
    fields = mine["fieldsV1"]
    assert "f:tiphys.io/run" in fields["f:metadata"]["f:annotations"]
    container = fields["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"a"}']
    assert set(container) - {"."} == {"f:image"}
    assert mine["operation"] == "Update"


def test_a_json_patch_does_not_make_the_parents_of_what_it_adds(world: World, space: str) -> None:
    read = world.wire.create(config_map(space, key="1"))
    change = [{"op": "add", "path": "/metadata/annotations/a", "value": "b"}]
    answer = world.wire.ask("PATCH", place_of(read), change, JSON_PATCH)
    assert (answer.status, answer.reason) == (422, "Invalid")
    first = {"op": "add", "path": "/metadata/annotations", "value": {}}
    written = world.wire.patch(place_of(read), [first, *change], JSON_PATCH)
    assert written["metadata"]["annotations"] == {"a": "b"}


def test_a_json_patch_that_removes_what_is_not_there_is_422(world: World, space: str) -> None:
    read = world.wire.create(config_map(space, key="1"))
    change = [{"op": "remove", "path": "/data/other"}]
    assert world.wire.ask("PATCH", place_of(read), change, JSON_PATCH).status == 422


def test_generation_counts_what_was_specified_and_nothing_else(world: World, space: str) -> None:
    path = place_of(world.wire.create(idle(space)))
    observed(world, path)

    def after(body: Json) -> int:
        return world.wire.patch(path, body)["metadata"]["generation"]

    began = world.wire.get(path)["metadata"]["generation"]
    assert after({"metadata": {"labels": {"a": "b"}}}) == began
    assert after({"metadata": {"generation": 99}}) == began
    assert after({"spec": {"paused": True}}) == began + 1
    # A Deployment's annotations count too: its controller copies them to its ReplicaSets.
    assert after({"metadata": {"annotations": {"a": "b"}}}) == began + 2

    def written() -> int:
        status = world.wire.get(path)
        status["status"]["observedGeneration"] = 1
        return world.wire.ask("PUT", path + "/status", status).status

    # Its controller writes to it too.
    world.until("its status is written", written, lambda code: code == 200)
    assert world.wire.get(path)["metadata"]["generation"] == began + 2
    assert "generation" not in world.wire.create(config_map(space))["metadata"]


# --- scale --------------------------------------------------------------------------------------


def test_scale_reads_as_a_scale_with_the_uid_and_version_of_the_whole(
    world: World, space: str
) -> None:
    path = place_of(world.wire.create(idle(space)))
    whole = observed(world, path)
    scale = world.wire.get(path + "/scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    for key in ("name", "namespace", "uid", "resourceVersion"):
        assert scale["metadata"][key] == whole["metadata"][key]
    assert scale["spec"].get("replicas", 0) == 0
    assert scale["status"]["selector"] == "app=cart"


def test_scale_is_written_only_over_what_was_read(world: World, space: str) -> None:
    path = place_of(world.wire.create(idle(space)))
    meta = observed(world, path)["metadata"]

    def scale(**other: str) -> Json:
        fence = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        named = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {**fence, **other}}
        return {**named, "spec": {"replicas": 1}}

    for wrong in (
        {"uid": "00000000-0000-0000-0000-000000000000"},
        {"resourceVersion": "1"},
    ):
        answer = world.wire.ask("PUT", path + "/scale", scale(**wrong))
        assert (answer.status, answer.reason) == (409, "Conflict"), answer.message
    assert world.wire.get(path)["spec"]["replicas"] == 0
    written = world.wire.want("PUT", path + "/scale", scale(), fieldManager="tiphys-x")
    assert (written["kind"], written["spec"]["replicas"]) == ("Scale", 1)
    whole = world.wire.get(path)
    assert whole["spec"]["replicas"] == 1
    assert whole["metadata"]["generation"] == meta["generation"] + 1
    owners = [
        entry
        for entry in whole["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert [(o["manager"], o.get("subresource")) for o in owners] == [("tiphys-x", "scale")]
    assert "time" not in owners[0], "nobody can tell from it when that was"


def test_whoever_writes_the_replicas_next_owns_them(world: World, space: str) -> None:
    path = place_of(world.wire.create(idle(space)))
    meta = observed(world, path)["metadata"]
    fence = {key: meta[key] for key in ("name", "namespace", "uid")}
    body: Json = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": fence}
    body["spec"] = {"replicas": 1}
    world.wire.want("PUT", path + "/scale", body, fieldManager="tiphys-x")
    whole = world.wire.patch(path, {"spec": {"replicas": 2}}, fieldManager="kubectl-edit")
    owners = [
        entry["manager"]
        for entry in whole["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert owners == ["kubectl-edit"]


# --- deleting -----------------------------------------------------------------------------------


def test_a_deletion_with_another_uid_is_409_and_deletes_nothing(world: World, space: str) -> None:
    made = world.wire.create(config_map(space))
    for precondition in (
        {"uid": "00000000-0000-0000-0000-000000000000"},
        {"resourceVersion": "1"},
    ):
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": precondition}
        answer = world.wire.ask("DELETE", place_of(made), options)
        assert (answer.status, answer.reason) == (409, "Conflict"), answer.message
    assert world.wire.find(place_of(made)) is not None
    options = {"kind": "DeleteOptions", "apiVersion": "v1"}
    options["preconditions"] = {"uid": made["metadata"]["uid"]}
    assert world.wire.ask("DELETE", place_of(made), options).status == 200
    assert world.wire.find(place_of(made)) is None

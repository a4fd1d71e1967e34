"""The stand-in for a machine provider goes on when a pool ends between two of its looks."""

from typing import Any

from tiphys.sandbox.machine_provider import VERSION, MachineProvider

_MACHINE = {
    "metadata": {
        "name": "gpus-1",
        "namespace": "lab",
        "labels": {"cluster.x-k8s.io/deployment-name": "gpus"},
        "finalizers": ["machine.cluster.x-k8s.io"],
    },
    "spec": {},
}
_POOL = {
    "kind": "MachineDeployment",
    "metadata": {"name": "gpus", "namespace": "lab", "uid": "1", "generation": 1},
    "spec": {"clusterName": "here", "replicas": 1, "selector": {}, "template": {"spec": {}}},
}


def test_a_pool_that_is_deleted_while_its_machine_starts_starts_none() -> None:
    asked: list[tuple[str, str]] = []

    def ask(method: str, path: str, _body: Any, _media: str) -> tuple[int, Any]:
        asked.append((method, path))
        if method == "GET" and path.startswith(f"/apis/{VERSION}/namespaces/"):
            return 404, {}
        lists = {"machinedeployments": [_POOL], "machines": [_MACHINE], "machinesets": []}
        if method == "GET":
            return 200, {"items": lists[path.rsplit("/", 1)[1]]}
        return 404, {}

    MachineProvider(ask).look()
    assert ("GET", f"/apis/{VERSION}/namespaces/lab/machinedeployments/gpus") in asked
    assert not [path for method, path in asked if method == "POST" and path.endswith("/nodes")]
    assert not [path for _, path in asked if path.endswith("/machines/gpus-1/status")]

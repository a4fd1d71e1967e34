"""What the API server says of itself: versions, groups and their resources."""

from tiphys.sandbox.resources import RESOURCES, Obj, Resource

VERSION: Obj = {
    "major": "1",
    "minor": "35",
    "gitVersion": "v1.35.4+sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "platform": "sandbox",
}


def discovery(path: str) -> Obj | None:
    """Answer a discovery path; None for any other."""
    parts = path.strip("/").split("/")
    if parts == ["version"]:
        return VERSION
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        named = sorted({(r.group, r.version) for r in RESOURCES if r.group})
        groups = [_group(*group) for group in named]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = "/".join(parts[1:])
    served = [r for r in RESOURCES if r.api_version == version]
    if parts[0] not in {"api", "apis"} or not served or (parts[0] == "api") != (version == "v1"):
        return None
    listed = [entry for resource in served for entry in _entries(resource)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": listed,
    }


def _group(name: str, version: str) -> Obj:
    entry = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def _entries(resource: Resource) -> list[Obj]:
    whole = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    }
    parts = [
        {
            "name": f"{resource.plural}/{part}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": {"scale": "Scale", "eviction": "Eviction"}.get(part, resource.kind),
            "verbs": {"log": ["get"], "eviction": ["create"]}.get(part, ["get", "patch", "update"]),
        }
        for part in resource.subresources
    ]
    return [whole, *parts]

"""Values for every field of Argo's WorkflowSpec, made from its definition's schema."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
_SCHEMA = Path(__file__).resolve().parents[2] / "data" / "argo" / "workflow.schema.json.gz"
_FIXED: Json = {
    # Where the schema asks for more than a type.
    "templates": [{"name": "x", "container": {"image": "x", "command": ["x"]}}],
    "templateDefaults": {"timeout": "1m"},
    "metrics": {"prometheus": [{"name": "x", "help": "x", "counter": {"value": "1"}}]},
}


def spec() -> Json:
    """Give the schema of a Workflow's spec."""
    return json.loads(gzip.decompress(_SCHEMA.read_bytes()))["properties"]["spec"]


def values() -> Iterator[tuple[str, Any]]:
    """Give each field of the spec with a value of its type."""
    for name, schema in sorted(spec()["properties"].items()):
        yield name, _FIXED[name] if name in _FIXED else value(schema)


def inside(*path: str) -> Iterator[tuple[str, Any]]:
    """Give each field below a field, through lists, with a value of its type."""
    schema = spec()
    for part in path:
        schema = schema["properties"][part]
        schema = schema.get("items", schema)
    for name, one in sorted(schema["properties"].items()):
        yield name, value(one)


def value(schema: Json) -> Any:
    """Make the smallest value that is not empty: what is required, else the first field."""
    if schema.get("x-kubernetes-int-or-string"):
        return "1"
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "boolean":
            return True
        case "integer" | "number":
            return max(1, int(schema.get("minimum", 1)))
        case "array":
            return [value(schema["items"])]
        case "object":
            return _object(schema)
        case "string":
            return "2030-01-01T00:00:00Z" if schema.get("format") == "date-time" else "x"
        case _:
            return "x"


def _object(schema: Json) -> Json:
    fields = schema.get("properties", {})
    if not fields:
        rest = schema.get("additionalProperties")
        return {"x": value(rest) if isinstance(rest, dict) else "x"}
    names = schema.get("required") or [min(fields)]
    return {name: value(fields[name]) for name in names}

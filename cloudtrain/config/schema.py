"""The JSON schema of cloudtrain.yaml, for editors."""

from __future__ import annotations

from typing import Any


def schema() -> dict[str, Any]:
    """Return the schema, with the short forms that `load` accepts beside the long ones."""
    from pydantic import TypeAdapter

    from cloudtrain.models.config import Config

    made = TypeAdapter(Config).json_schema()
    properties: dict[str, Any] = made["properties"]
    for key in ("dataset", "project"):
        properties[key] = {
            "anyOf": [properties[key], {"type": "string"}],
            "description": properties[key].get("description", ""),
        }
    kinds: dict[str, Any] = made["$defs"]["Instance"]["properties"]
    kinds["type"] = {
        "anyOf": [kinds["type"], {"type": "string"}],
        "description": kinds["type"].get("description", ""),
    }
    python: dict[str, Any] = made["$defs"]["Environment"]["properties"]["python"]
    python["type"] = ["string", "number"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cloudtrain.yaml",
        **{key: value for key, value in made.items() if key != "title"},
    }

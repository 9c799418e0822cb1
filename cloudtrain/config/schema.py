"""The JSON schema of cloudtrain.yaml, for editors."""

from __future__ import annotations

import json
from typing import Any

ADDRESS = "https://raw.githubusercontent.com/cloudtrain/cloudtrain/main/docs/reference/cloudtrain.schema.json"
"""Where editors find it; `cloudtrain config-schema` prints the same."""


def schema() -> dict[str, Any]:
    """Return the schema, with the short forms that `load` accepts beside the long ones."""
    from pydantic import TypeAdapter

    from cloudtrain.config.given import SHORT
    from cloudtrain.models.config import Config

    made = TypeAdapter(Config).json_schema()
    short = {f"#/$defs/{kind.__name__}" for kind in SHORT}
    described = {f"#/$defs/{name}": section["description"] for name, section in made["$defs"].items()}
    for section in (made, *made["$defs"].values()):
        section["properties"] = {
            key: _also(one, short, described) for key, one in section["properties"].items()
        }
    made["$defs"]["Environment"]["properties"]["python"]["type"] = ["string", "number"]
    several = {"items": {"minimum": 0, "type": "integer"}, "type": "array"}
    made["$defs"]["Train"]["properties"]["gpus"]["anyOf"] += [{"minimum": 1, "type": "integer"}, several]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ADDRESS,
        "title": "cloudtrain.yaml",
        "description": "What to train, on what machine, and for how much.",
        **{key: value for key, value in made.items() if key not in ("title", "description")},
    }


def schema_text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _also(found: dict[str, Any], short: set[str], described: dict[str, str]) -> dict[str, Any]:
    """Return a property's schema with the short forms beside it: one word for a list or a section.

    A section whose keys are all commented out is empty, and means the defaults.
    """
    said = {key: value for key, value in found.items() if key in ("title", "description", "default")}
    form = {key: value for key, value in found.items() if key not in said}
    if "$ref" in form:
        forms = [form, {"type": "null"}]
        said.setdefault("description", described[form["$ref"]])
        if form["$ref"] in short:
            forms.append({"type": "string"})
    elif form.get("type") == "array":
        item: dict[str, Any] = form["items"]
        forms = [form, item, {"type": "null"}]
        if item.get("$ref") in short:
            forms[0] = {**form, "items": {"anyOf": [item, {"type": "string"}]}}
    elif form.get("type") == "object":
        forms = [form, {"type": "null"}]
    else:
        return found
    return {"anyOf": forms, **said}

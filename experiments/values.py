"""Values that others write, checked against types; what is refused, in one line."""

from typing import Any

import pydantic
from pydantic_core import ErrorDetails

from experiments.words import nearest, show, show_name

_KINDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a string",
    "array": "a list",
    "object": "a table [{}]",
}
_DETAILS = {
    "minimum": "from {}",
    "exclusiveMinimum": "from above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "to below {}",
    "description": "{}",
}


def read(
    kind: pydantic.TypeAdapter, value: object, name: str = "", verb: str = "give"
) -> Any:
    """Returns a value as its type has it, nothing converted but 2 to 2.0.

    Args:
        kind: the type.
        value: of numbers, strings, lists and tables.
        name: what the message calls it; empty for a table whose entries are named.
        verb: what the message says before what is allowed.

    Raises:
        ValueError: a line that names the first entry at fault, its value and what is
            allowed.

    Example:
        >>> read(pydantic.TypeAdapter(bool), 1, "shared")
        Traceback (most recent call last):
        ValueError: shared=1: give true or false.
    """
    try:
        return kind.validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        # What is misspelt is missing, too, and tells more.
        fault = min(error.errors(), key=lambda fault: fault["type"] == "missing")
        try:
            schema = kind.json_schema()
        except pydantic.PydanticInvalidForJsonSchema:
            schema = {}
        raise ValueError(_explain(fault, schema, name, verb)) from None


def _explain(fault: ErrorDetails, schema: dict[str, Any], name: str, verb: str) -> str:
    """Rewords an error, and adds what its place in the schema allows."""
    defs = schema.get("$defs", {})
    schema = _resolve(schema, defs)
    path = [name] if name else []
    known: list[str] = []
    for part in fault["loc"]:
        if schema.get("type") == "object":
            path.append(show_name(str(part)))
            known = sorted(schema.get("properties", {}))
            inner = schema.get("properties", {}).get(part)
            inner = inner or schema.get("additionalProperties")
        elif schema.get("type") == "array":
            inner = schema.get("items")  # an item is told by its value
        else:
            break  # a member of a union
        schema = _resolve(inner if isinstance(inner, dict) else {}, defs)
    is_unknown = fault["type"] == "extra_forbidden"
    if fault["type"] == "string_unicode" and schema.get("type") == "object":
        path.append(show_name(fault["input"]))  # a key that no text can hold
        known, is_unknown = sorted(schema.get("properties", {})), True
    where = ".".join(path)
    if fault["type"] == "missing":
        return f"{where} is missing; add it."
    if is_unknown:
        return (
            f"{where}: unknown, leave it out; known are {', '.join(known)}"
            f"{nearest(path[-1], known)}."
        )
    value, allowed = fault["input"], _allowed(schema, where)
    if not allowed or fault["type"] == "value_error":
        return f"{where}={show(value)}: {fault['msg']}."
    near = nearest(value, schema.get("enum", ())) if isinstance(value, str) else ""
    return f"{where}={show(value)}: {verb} {allowed}{near}."


def _resolve(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Follows a reference, and takes what may be None for what it is otherwise."""
    if "$ref" in schema:
        return defs[schema["$ref"].rpartition("/")[2]]
    members = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return schema | _resolve(members[0], defs) if len(members) == 1 else schema


def _allowed(schema: dict[str, Any], where: str) -> str:
    """Says what a schema allows; nothing if it does not say so itself."""
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "properties" in schema:
        return _KINDS["object"].format(where)  # its description is a docstring
    words = [_KINDS.get(schema.get("type", ""), "").format(where)]
    words += [
        text.format(schema[key]) for key, text in _DETAILS.items() if key in schema
    ]
    return " ".join(filter(None, words))

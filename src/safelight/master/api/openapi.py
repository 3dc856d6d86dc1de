"""Make the OpenAPI document from the endpoints and from msgspec's schemas of their records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from safelight import __version__
from safelight.errors import STATUS, TITLE, Code
from safelight.master.api.endpoint import Endpoint

_REFERENCE = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details. `code` is for programs, `detail` says what to do.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": [code.value for code in Code]},
    },
}
_TAGS = {
    "uploads": "Upload photos",
    "tasks": "Follow and control tasks",
    "results": "Download results",
    "recipes": "Manage recipes",
    "events": "Follow changes as they happen",
    "access": "Manage access",
    "workers": "For workers",
    "classic": "The classic protocol",
}


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Describe an API as OpenAPI 3.1."""
    endpoints = list(endpoints)
    types = _types(endpoints)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    known = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _described(endpoint, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "safelight",
            "version": __version__,
            "description": "Photos go in, workers process them, results come out. Errors are problem documents.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": {**components, "Problem": _PROBLEM}},
    }


def _types(endpoints: list[Endpoint]) -> list[Any]:
    found: dict[str, Any] = {}
    for endpoint in endpoints:
        others = (kind for content in endpoint.also.values() for kind in content.values())
        for kind in (*endpoint.body.values(), *endpoint.answer.values(), *others):
            if not isinstance(kind, Mapping):
                found[repr(kind)] = kind
    return list(found.values())


def _described(endpoint: Endpoint, known: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _id(endpoint),
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "responses": _responses(endpoint, known),
    }
    if endpoint.description:
        described["description"] = endpoint.description
    if parameters := _parameters(endpoint):
        described["parameters"] = parameters
    if endpoint.body:
        described["requestBody"] = {"required": True, "content": _content(endpoint.body, known, endpoint.examples)}
    return described


def _id(endpoint: Endpoint) -> str:
    words = re.findall(r"[a-z]+", endpoint.path)
    return "-".join([endpoint.method.lower(), *words])


def _content(kinds: Mapping[str, Any], known: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media_type, kind in kinds.items():
        content[media_type] = {"schema": kind if isinstance(kind, Mapping) else known[repr(kind)]}
        if media_type in examples:
            content[media_type]["example"] = examples[media_type]
    return content


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    if endpoint.query is not None:
        _, components = msgspec.json.schema_components([endpoint.query])
        for name, schema in components[endpoint.query.__name__]["properties"].items():
            parameters.append({"name": name, "in": "query", "schema": _given(schema)})
            if text := parameters[-1]["schema"].pop("description", None):
                parameters[-1]["description"] = text
    for name, text in endpoint.request_headers.items():
        parameters.append({"name": name, "in": "header", "description": text, "schema": {"type": "string"}})
    return parameters


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter without null: a parameter is left out instead."""
    given = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if choices := [choice for choice in given.pop("anyOf", []) if choice != {"type": "null"}]:
        given |= choices[0] if len(choices) == 1 else {"anyOf": choices}
    return given


def _responses(endpoint: Endpoint, known: Mapping[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, content in {endpoint.status: endpoint.answer, **endpoint.also}.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if content:
            responses[str(status)]["content"] = _content(content, known, {})
    by_status: dict[int, list[Code]] = {}
    for code in endpoint.errors:
        by_status.setdefault(STATUS[code], []).append(code)
    classic = getattr(endpoint.handler, "classic", False)
    for status, codes in sorted(by_status.items()):
        problem = _problem(", ".join(f"{TITLE[code]} (`{code.value}`)" for code in codes), plain=classic)
        problem["content"].update(responses.get(str(status), {}).get("content", {}))
        responses[str(status)] = problem
    responses["default"] = _problem("Any other problem", plain=classic)
    return responses


def _problem(text: str, *, plain: bool) -> dict[str, Any]:
    """Describe an error: a problem document or, with `plain`, a sentence for clients that do not accept JSON."""
    content: dict[str, Any] = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(name="Problem")}}}
    if plain:
        content["text/plain"] = {"schema": {"type": "string"}}
    return {"description": text, "content": content}

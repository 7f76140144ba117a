"""The description of the socket, made from the table of control files: ``python -m uzswap.serve.openapi``."""

from __future__ import annotations

import json
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from uzswap.files.cgroup import FILES
from uzswap.files.engine import ENGINE_FILES

if TYPE_CHECKING:
    from uzswap.files.file import FileType

__all__ = ["as_yaml", "document"]

#: those of 500 and above are the device's: EIO and the like, ENOSPC
_ERRORS: Final = ("4XX", "5XX")
_NUMBER: Final = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
_CGROUP: Final = {
    "name": "cgroup",
    "in": "path",
    "required": True,
    "description": "path of the cgroup, such as `jobs/a`; its slashes may stay as they are",
    "schema": {"type": "string", "minLength": 1},
}
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_BODY: Final = {"required": True, "content": {"text/plain": {"schema": {"type": "string", "maxLength": 4096}}}}
_FLAG: Final[dict[str, Any]] = {"in": "query", "schema": {"type": "string", "enum": [""]}, "allowEmptyValue": True}
_LOCATION: Final = {
    "201": {
        "description": "opened; an hour after its last use it may be closed",
        "headers": {"Location": {"schema": {"type": "string"}, "required": True}},
    }
}


_ACT: Final = (
    {"name": "within", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 3600}},
    {
        "name": "then",
        "in": "query",
        "description": "a file of the same directory",
        "schema": {"type": "string", "default": "memory.stat"},
    },
)
_ACTED: Final = {
    "200": {
        "description": "written to, or not: the error says it; and the other file's text, null when it is gone",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Acted"}}},
    }
}


def _responses(code: str, description: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    done: dict[str, Any] = {"description": description}
    if content is not None:
        done["content"] = content
    return {code: done} | {error: {"$ref": "#/components/responses/Error"} for error in _ERRORS}


def _file(row: FileType[Any], parameters: list[Any]) -> dict[str, Any]:
    """Return the description of the path of one file."""
    unit = f", in {row.unit}" if row.unit else ""
    item: dict[str, Any] = {"summary": f"{row.help}{unit}"}
    if parameters:
        item["parameters"] = parameters
    if row.reader is not None:
        item["get"] = {"summary": "read it", "responses": _responses("200", "the text", _TEXT)}
        if row.keys:
            keys = "\n".join(
                f"- `{key.name}`: {key.help or key.name}{f' ({key.unit})' if key.unit else ''}" for key in row.keys
            )
            item["get"]["description"] = f"One line for each key:\n\n{keys}"
    if row.writable:
        item["put"] = {
            "summary": "write to it",
            "requestBody": _BODY,
            "responses": _responses("204", "all of it was written"),
        }
    item["post"] = {
        "summary": "open it, for what belongs to an open file: polls, triggers, peaks; "
        "or, with within, write to it for that long at most, and be told what another file says then",
        "parameters": [{"name": "open", **_FLAG}, {"name": "nonblock", **_FLAG}, *_ACT],
        "requestBody": _BODY | {"required": False},
        "responses": _responses("201", "") | _LOCATION | _ACTED,
    }
    return item


def _choice(name: str, choices: tuple[str, ...], description: str) -> dict[str, Any]:
    schema = {"type": "string", "enum": list(choices), "default": choices[0]}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, Any] = {}
    for path, engine_row in ENGINE_FILES.items():
        paths[f"/{path}"] = _file(engine_row, [])
    for name, row in FILES.items():
        if row.on_root:
            paths[f"/cgroup/{name}"] = _file(row, [])
        paths[f"/cgroup/{{cgroup}}/{name}"] = _file(row, [_CGROUP])
    listing = {"application/json": {"schema": {"$ref": "#/components/schemas/Listing"}}}
    inner = (f"/{parent}/" for path in ENGINE_FILES for parent in reversed(PurePosixPath(path).parents[:-1]))
    for directory in dict.fromkeys(("/", "/cgroup/", *inner)):
        paths[directory] = {"get": {"summary": "list it", "responses": _responses("200", "what is in it", listing)}}
    paths["/cgroup/{cgroup}/"] = {
        "summary": "a cgroup",
        "parameters": [_CGROUP],
        "get": {"summary": "list it", "responses": _responses("200", "files and children", listing)},
        "put": {"summary": "make it", "responses": _responses("201", "it was made")},
        "delete": {"summary": "remove it", "responses": _responses("204", "it was removed")},
    }
    events = {"application/json": {"schema": {"type": "object", "properties": {"events": {"type": "integer"}}}}}
    paths["/open/{number}"] = {
        "summary": "an open file",
        "parameters": [_NUMBER],
        "get": {
            "summary": "read it, or wait until it has something to tell: POLLPRI is 2, POLLERR 8",
            "parameters": [
                {"name": "poll", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 3600}}
            ],
            "responses": _responses("200", "the text, or the events", _TEXT | events),
        },
        "put": {
            "summary": "write to it",
            "requestBody": _BODY,
            "responses": _responses("204", "all of it was written"),
        },
        "delete": {"summary": "close it", "responses": _responses("204", "it is closed")},
    }
    paths["/metrics"] = {
        "get": {
            "summary": "for Prometheus",
            "parameters": [
                _choice("zeros", ("0", "1"), "say what is 0 or unlimited, and always was, as well"),
                _choice("buckets", ("some", "all", "none"), "which buckets of histograms to say"),
            ],
            "responses": _responses("200", "the metrics", _TEXT),
        }
    }
    told = {"application/json": {"schema": {"$ref": "#/components/schemas/Stat"}}}
    cgroup = {"name": "cgroup", "in": "query", "schema": {"type": "string", "default": "/"}}
    files = {
        "name": "files",
        "in": "query",
        "schema": {"type": "string"},
        "description": "of which files, with commas between; by default of all",
        "example": "memory.stat,memory.max",
    }
    paths["/v1/stat"] = {
        "get": {
            "summary": "what the files of a cgroup tell, or of all below it too, without what is 0 and always was",
            "parameters": [cgroup, _choice("recursive", ("0", "1"), "of the whole subtree, in pre-order"), files],
            "responses": _responses("200", "numbers by file and key", told),
        }
    }
    paths["/v1/ages"] = {
        "get": {
            "summary": "what a subtree has in the pool, by age: what a request with a min_age could write",
            "parameters": [cgroup],
            "responses": _responses(
                "200", "by age", {"application/json": {"schema": {"$ref": "#/components/schemas/Ages"}}}
            ),
        }
    }
    key = {"name": "key", "in": "query", "schema": {"type": "string"}, "description": "as Python writes it"}
    paths["/v1/report"] = {
        "get": {
            "summary": "where the memory of the process is: its RSS told apart; of a subtree, what its stores and "
            "arrays have where, and why values stay. With a key: why its value is where it is, in stores of the cgroup",
            "parameters": [cgroup, key],
            "responses": _responses(
                "200", "the report", {"application/json": {"schema": {"$ref": "#/components/schemas/Report"}}}
            ),
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "uzswap control files",
            "version": "1",
            "description": "Served on a Unix socket: `curl --unix-socket SOCKET http://localhost/cgroup/memory.stat`.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "responses": _RESPONSES},
    }


def _numbers(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "integer"}, "description": description}


_INODE: Final = {"type": "integer", "description": "a cgroup's own, and no other's after it is gone"}
_SCHEMAS: Final = {
    "Error": {
        "type": "object",
        "required": ["errno", "error", "message", "path"],
        "properties": {
            "errno": {"type": "integer", "examples": [11]},
            "error": {"type": "string", "examples": ["EAGAIN"]},
            "message": {"type": "string"},
            "path": {"type": "string"},
            "result": {"type": "object", "description": "how far a reclaim came, as in uzswap.last_reclaim"},
        },
    },
    "Acted": {
        "type": "object",
        "required": ["error", "then"],
        "properties": {
            "error": {"oneOf": [{"$ref": "#/components/schemas/Error"}, {"type": "null"}]},
            "then": {"type": ["string", "null"]},
        },
    },
    "Stat": {
        "type": "object",
        "required": ["time", "cgroups"],
        "properties": {
            "time": {"type": "number", "description": "seconds since 1970"},
            "cgroups": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["cgroup", "inode"],
                    "properties": {"cgroup": {"type": "string"}, "inode": _INODE},
                    "additionalProperties": {"type": ["number", "string", "object"]},
                },
            },
        },
    },
    "Ages": {
        "type": "object",
        "required": ["since", "bytes", "entries"],
        "properties": {
            "since": _numbers("seconds, growing from 0: an age counts under the last one that it has reached"),
            "bytes": _numbers("compressed bytes"),
            "entries": _numbers("entries"),
        },
    },
    "Report": {
        "type": "object",
        "required": ["cgroup"],
        "properties": {
            "cgroup": {"type": "string"},
            "rss": {"type": "integer", "description": "bytes, of the whole process"},
            "process": {"type": "object", "additionalProperties": {"type": "integer"}, "description": "its parts"},
            "stores": {"type": "array", "items": {"type": "object"}, "description": "see uzswap.Report"},
            "arrays": {
                "type": "array",
                "items": {"type": "object"},
                "description": "bytes by place; in strip, a letter for each run of pages: R z d, . nowhere, ! lost",
            },
            "values": {"type": "array", "items": {"type": "object"}, "description": "of the key, by store"},
        },
    },
    "Listing": {
        "type": "object",
        "required": ["inode", "entries"],
        "properties": {
            "inode": _INODE,
            "entries": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "type", "mode", "inode"],
                    "properties": {
                        "name": {"type": "string"},
                        "type": {"enum": ["file", "directory"]},
                        "mode": {"type": "string", "pattern": "^[0-7]{4}$"},
                        "inode": _INODE,
                    },
                },
            },
        },
    },
}
_RESPONSES: Final = {
    "Error": {
        "description": "refused; the errno is what the same operation on a mount gives",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}


def as_yaml() -> str:
    """Return the document as YAML: keys in order, every text quoted as JSON does, which YAML 1.2 has as a subset."""
    made_by = "# Made by `python -m uzswap.serve.openapi > docs/openapi.yaml` from src/uzswap/files/cgroup.py.\n"
    return made_by + "".join(_lines(document(), 0))


def _lines(value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    lines = []
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        head = f"{indent}- " if key is None else f"{indent}{json.dumps(key)}: "
        if isinstance(item, dict | list) and item and not isinstance(value, list):
            lines += [head.rstrip() + "\n", *_lines(item, depth + 1)]
        else:
            lines.append(f"{head}{json.dumps(item, ensure_ascii=False)}\n")
    return lines


if __name__ == "__main__":
    sys.stdout.write(as_yaml())

"""What fuzzing starts from: the workflows of this repository, and forms that people send.

Corpora beside the repository, in FUZZ_DATA or `../shared/data`, are added where they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz import bundle

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FUZZ_DATA") or ROOT.parent / "shared" / "data")
_WORKFLOWS = (
    *(ROOT / "schemas" / name for name in ("starter", "knowledge_router")),
    *(SHARED / name for name in ("telecom", "clinc_slice")),
)
MAX_PAGE = 12_000

Json = dict[str, Any]


def missing() -> list[Path]:
    """Folders of corpora that are not on this machine."""
    folders = [*_WORKFLOWS, SHARED / "specs", SHARED / "bfcl"]
    return [folder for folder in folders if not folder.is_dir()]


def rules() -> Iterator[bytes]:
    for folder in _present():
        page, tools = (folder / "rules.md").read_bytes(), _tools(folder)
        words = (folder / "words.md").read_bytes()
        front, *sections = page.split(b"\n## ")
        if len(page + words) < MAX_PAGE:
            whole = page[len(front) + 1 :]
            yield bundle.join({"rules.md": whole, "tools.json": tools, "words.md": words})
        shared = b"## Shared" + words.partition(b"## Shared")[2].partition(b"\n## ")[0]
        for section in sections:
            # Alone, as small inputs are tried more often; so without its references to others.
            alone = b"## " + section.partition(b"### Not")[0]
            yield bundle.join({"rules.md": alone, "tools.json": tools, "words.md": shared})
    for then in _THENS:
        for example in _EXAMPLES:
            page = _RULE % (then.encode(), example.encode())
            yield bundle.join({"rules.md": page, "tools.json": _ORDER_TOOLS})


def front_matter() -> Iterator[bytes]:
    yield from (text.encode() for text in _FRONT)


def tools() -> Iterator[bytes]:
    for folder in _present():
        for row in _gold_rows(folder)[:4] or [{}]:
            arguments = json.dumps(row.get("tool_arguments") or {}).encode()
            yield bundle.join({"tools.json": _tools(folder), "arguments.json": arguments})
        for one in json.loads(_tools(folder)):
            yield from map(_tool_list, _vendor_forms(one.get("function", one)))
    for schema, arguments in _SCHEMAS:
        tool = {"name": "f", "description": "Do it.", "parameters": schema}
        yield bundle.join(
            {
                "tools.json": json.dumps([tool], indent=1).encode(),
                "arguments.json": json.dumps(arguments).encode(),
            }
        )
    for document in _documents():
        yield bundle.join({"tools.json": document})


def gold() -> Iterator[bytes]:
    for folder in _present():
        rows = _gold_rows(folder)
        for start in range(0, min(len(rows), 40), 4):
            lines = "".join(json.dumps(row) + "\n" for row in rows[start : start + 4])
            files = {"gold.jsonl": lines.encode(), "tools.json": _tools(folder)}
            yield bundle.join(files)
        for row in rows[:10]:
            for chat in _chat_rows(row):
                yield bundle.join({"gold.jsonl": json.dumps(chat).encode()})
    if (SHARED / "simple_tool_calling.jsonl").is_file():
        yield bundle.join({"gold.jsonl": (SHARED / "simple_tool_calling.jsonl").read_bytes()})


def replies() -> Iterator[bytes]:
    for content in _contents():
        yield from map(_response, _completions(content))
    for status, headers, body in _ERRORS:
        yield _response(body, status, headers)


def answers() -> Iterator[bytes]:
    from distill.records import ToolCall
    from distill.render import FORMATS

    calls = [
        ToolCall(name="search", arguments={"query": "travel policy", "scope": "internal"}),
        ToolCall(name="book", arguments={"room": {"name": "a", "floor": 2}, "people": ["b", "c"]}),
        ToolCall(name="ping", arguments={"n": None, "x": [1.5, True, -2e9], "é": '{"a": [1]}'}),
    ]
    for format in FORMATS:
        for text in (format.write(calls[:1]), format.write(calls), format.write(calls[1:2])):
            yield text.encode()
            yield f"<think>\nIt is {text}\n</think>\n\n{text}".encode()
            yield f"I will look.\n{text}\nDone.<end_of_turn>".encode()
    yield from (text.encode() for text in _ANSWERS)


def _present() -> list[Path]:
    return [folder for folder in _WORKFLOWS if folder.is_dir()]


def _tools(folder: Path) -> bytes:
    return (folder / "tools.json").read_bytes()


def _gold_rows(folder: Path) -> list[Json]:
    path = folder / "gold.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _tool_list(value: Any) -> bytes:
    return bundle.join({"tools.json": json.dumps(value).encode()})


def _vendor_forms(function: Json) -> Iterator[Any]:
    """One tool as OpenAI's two APIs, MCP, Anthropic and Gemini list it."""
    rest = {key: value for key, value in function.items() if key != "parameters"}
    schema = function.get("parameters", {})
    yield [{"type": "function", "function": function}]
    yield [{"type": "function", **function, "strict": True}]
    yield {"tools": [{**rest, "inputSchema": schema, "annotations": {"title": "T"}}]}
    yield {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{**rest, "inputSchema": schema}]}}
    yield [{**rest, "input_schema": schema}]
    yield [{"functionDeclarations": [{**rest, "parametersJsonSchema": schema}]}]
    yield [{"function_declarations": [function]}]
    yield [{"toolSpec": {**rest, "inputSchema": {"json": schema}}}]


def _documents() -> Iterator[bytes]:
    """Single tools of published lists, and whole API descriptions."""
    mcp = SHARED / "specs" / "mcp_github_tools_list.json"
    if mcp.is_file():
        for tool in json.loads(mcp.read_text("utf-8"))["tools"][::4]:
            yield json.dumps({"tools": [tool]}).encode()
    for path in sorted((SHARED / "specs" / "openapi").glob("*.json")):
        yield path.read_bytes()
    for path in sorted((SHARED / "bfcl").glob("BFCL_v4_live_[sp]*.json")):
        for line in path.read_text("utf-8").splitlines()[:20]:
            yield json.dumps(json.loads(line)["function"]).encode()


def _chat_rows(row: Json) -> Iterator[Json]:
    """A row in the form of chat APIs, in the ways in which a call is written there."""
    user = {"role": "user", "content": row.get("user_content", "Hello")}
    system = {"role": "system", "content": "You route."}
    name, arguments = row.get("tool_name"), row.get("tool_arguments") or {}
    if not name:
        answer = {"role": "assistant", "content": "Which one?"}
        yield {"messages": [system, user, answer], "target": row.get("target", "answer")}
        return
    text = json.dumps(arguments)
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": text}}
    parts = [{"type": "text", "text": "Hm."}]
    result = {"role": "tool", "tool_call_id": "c1", "content": "[]"}
    for turn in (
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": None, "function_call": call["function"]},
        {"role": "assistant", "tool_calls": [{"name": name, "arguments": arguments}]},
        {
            "role": "assistant",
            "content": f'<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>',
        },
        {"role": "assistant", "content": parts, "tool_calls": [call], "refusal": None},
    ):
        yield {"messages": [user, turn]}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    yield {"messages": [user, called, result, {"role": "assistant", "content": "It is sent."}]}
    more = {**user, "content": "And the other one?"}
    yield {"messages": [user, called, result, more, called], "tools": [], "rule": row.get("rule")}


def _contents() -> Iterator[str]:
    """Texts of replies to what the checks ask."""
    search = {"name": "search", "arguments": {"query": "travel policy", "scope": "internal"}}
    book = {"name": "book", "arguments": {"room": {"name": "a", "floor": None}, "people": None}}
    public = {"name": "search", "arguments": {"query": "x", "scope": "public", "limit": 3}}
    user = "where is the travel policy?"
    written = {"user": user, "calls": [search]}
    several = {"user": user, "calls": [book, public, {"name": "ping", "arguments": {}}]}
    said = {"user": user, "reply": "Which one?"}
    route = {"because": "b", "rule": "documents", "action": "call", "calls": [search], "reply": ""}
    for value in (written, several, said, route, {"1": written, "2": said}):
        yield json.dumps(value)
    yield f"```json\n{json.dumps(written, indent=1)}\n```"
    yield f"<think>The user wants {json.dumps(said)}.</think>{json.dumps(written)}"
    yield f"Here it is: {json.dumps(written)} I hope that helps."
    yield ""


def _completions(content: str) -> Iterator[Json]:
    """A completion around `content`, as servers differ in it."""
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    details = {"prompt_tokens_details": {"cached_tokens": 3}}
    message: Json = {"role": "assistant", "content": content}

    def completion(message: Json, finish: str = "stop", **more: Any) -> Json:
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], **more}

    yield completion(message, usage=usage | details)
    yield completion({**message, "content": [{"type": "text", "text": content}]}, usage=usage)
    yield completion({**message, "reasoning_content": "Hm."}, "length", usage=None)
    yield completion({**message, "content": None, "refusal": "No."}, "content_filter")
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": content}}
    yield completion({**message, "content": None, "tool_calls": [call]}, "tool_calls", usage={})
    yield {"choices": [], "usage": usage}


def _response(body: Any, status: str = "200 OK", headers: str = "") -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}"
    return f"{head}\r\n".encode() + text.encode()


_ERRORS: tuple[tuple[str, str, Any], ...] = (
    (
        "400 Bad Request",
        "",
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens'",
                "param": "max_tokens",
                "code": "unsupported_parameter",
                "type": "invalid_request_error",
            }
        },
    ),
    (
        "422 Unprocessable Entity",
        "",
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "seed"],
                    "msg": "Extra inputs are not permitted",
                }
            ]
        },
    ),
    (
        "400 Bad Request",
        "",
        {"object": "error", "message": "response_format is not supported", "code": 400},
    ),
    ("400 Bad Request", "", {"error": "This model does not support temperature"}),
    ("401 Unauthorized", "", {"error": {"message": "Incorrect API key provided: sk-not-a-key"}}),
    ("403 Forbidden", "", "<html>no</html>"),
    ("404 Not Found", "", {"error": {"message": "no such model", "code": 404}}),
    ("402 Payment Required", "", {"error": {"code": "insufficient_quota"}}),
    ("429 Too Many Requests", "Retry-After: 1\r\n", {"error": {"type": "insufficient_quota"}}),
    ("429 Too Many Requests", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT\r\n", ""),
    ("500 Internal Server Error", "", "Internal Server Error"),
    ("503 Service Unavailable", "Retry-After: inf\r\nX-Request-Id: 1\r\n", {"message": ["busy"]}),
    ("302 Found", "Location: /elsewhere\r\n", ""),
    ("200 OK", "", {"error": {"message": "upstream failed", "code": 502}}),
    ("200 OK", "", 'data: {"choices": [{"delta": {"content": "{"}}]}\n\ndata: [DONE]\n\n'),
    ("200 OK", "Content-Encoding: gzip\r\n", "{}"),
    ("200 OK", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
    ("200 OK", "Content-Length: 2\r\n", "{}"),
)
_ANSWERS = (
    "It is in the handbook.",
    '{"name": "search", "parameters": {"query": "x"}}; {"name": "ping", "parameters": {}}',
    '[TOOL_CALLS] [{"name": "search", "arguments": "{\\"query\\": \\"x\\"}"}]',
    '<|python_tag|>{"name": "search", "parameters": {"query": "x"}}<|eom_id|>',
    "call:search{query:<escape>x<escape>}",
    "<start_function_call>call:search{query:<escape>x<escape>,n:[1,2.5,None]}"
    "<end_function_call><start_function_response>",
)
_FRONT = (
    "title: Desk\ntools: tools.json\nwords: words.md\ngold: gold.jsonl",
    "title: 'It''s: a \"desk\"' # a comment\n",
    'title: |\n  two\n  lines\ntools: "tools.json"',
    "title: >-\n  folded\n  text\n",
    "{title: Desk, tools: tools.json}",
    "? title\n: Desk\n",
    "title: 2024-02-30\n",
    "title: 12:30:45\ntools: 1e3\nwords: 0x1f\ngold: ~",
    "a: &a [x, x]\nb: &b [*a, *a]\ntitle: *b",
    "<<: {title: Desk}\ntools: tools.json",
    "title: !!binary aGk=\n",
    "title: !!python/object/apply:os.getcwd []\n",
    "title: !!timestamp 2001-12-14t21:59:43.10-05:00\n",
    "title: Desk\ntitle: Other\n",
    "%YAML 1.2\n--- \ntitle: Desk\n...\n",
    "- title\n- Desk\n",
    "null: x\ntrue: y\n1: z\n",
)
_RULE = b"""## set-status: Change a status

**When** the agent gives a ticket and a status.

**Then** %b

### Examples

- close BK-2041%b

### Not

- close it \xe2\x86\x92 which

## which: Which ticket

**When** no ticket is given.

**Then** ask "Which ticket?"

### Words

#### Things
- the ticket {ticket}; an order

#### Phrases
- close the [ticket {ticket}]

#### Slots
- ticket: BK-2041, TR-1187
"""
_EXAMPLES = (
    "",
    " → ticket: BK-2041, status: closed",
    ' -> {"ticket": "BK-2041", "status": "closed"}',
    ' => set_status(ticket="BK-2041", status="closed")',
)
_THENS = (
    'call `set_status` with `status` = "closed".',
    'call `set_status` with status = "closed" and `ticket` = "{ticket}".',
    'call `set_status` with `{"status": "closed"}`.',
    "call `set_status` with:\n\n- `status` = closed\n- `note` = '{topic}'\n",
    "call `set_status`, then call `ping`.",
    "call set_status with the ticket number, and status=\u201cclosed\u201d",
    "answer: it is closed.",
    'refuse with "No."',
    'call `set_status` with `tags` = ["a", 1], `limit` = 3 and `urgent` = true.',
)
_ORDER_TOOLS = json.dumps(
    [
        {
            "name": "set_status",
            "description": "Set a ticket's status.",
            "parameters": {
                "type": "object",
                "properties": {
                    "ticket": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
                    "status": {"type": "string", "enum": ["open", "closed", "escalated"]},
                    "note": {"type": ["string", "null"], "maxLength": 80},
                    "tags": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 50},
                    "urgent": {"type": "boolean", "default": False},
                },
                "required": ["ticket", "status"],
            },
        },
        {"name": "ping", "description": "Check.", "parameters": {"type": "object"}},
    ]
).encode()


def _object(properties: Json, **more: Any) -> Json:
    return {"type": "object", "properties": properties, **more}


_NODE = _object({"next": {"$ref": "#/$defs/node"}, "value": {"type": "number"}})
_SCHEMAS: tuple[tuple[Json, Any], ...] = (
    (
        _object({"a": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": _NODE}}),
        {"a": {"next": {"value": 1}}},
    ),
    (
        _object({"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, required=["a"]),
        {"a": None},
    ),
    (
        _object({"a": {"oneOf": [_object({"k": {"const": 1}}), _object({"k": {"const": 2}})]}}),
        {"a": {"k": 2}},
    ),
    (
        _object(
            {"a": {"type": "string"}}, allOf=[_object({"b": {"type": "integer"}}, required=["b"])]
        ),
        {"b": 1},
    ),
    (
        _object(
            {"a": {"type": "string", "nullable": True, "format": "date", "pattern": "^(a+)+$"}}
        ),
        {"a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!"},
    ),
    (
        _object(
            {},
            patternProperties={"^x-": {"type": "string"}},
            additionalProperties={"type": "integer"},
        ),
        {"x-a": "b", "n": 1},
    ),
    (
        _object(
            {
                "a": {
                    "type": "array",
                    "prefixItems": [{"type": "string"}],
                    "items": {"enum": [1, None]},
                    "uniqueItems": True,
                    "contains": {"const": 1},
                }
            }
        ),
        {"a": ["x", 1]},
    ),
    (
        _object(
            {"a": {}},
            **{
                "if": {"required": ["a"]},
                "then": {"required": ["b"]},
                "else": {"not": {"required": ["b"]}},
            },
        ),
        {"a": 1, "b": 2},
    ),
    (
        _object(
            {"a": {}},
            dependentSchemas={"a": _object({"b": {}})},
            dependentRequired={"a": ["b"]},
            unevaluatedProperties=False,
        ),
        {"a": 1, "b": 2},
    ),
    (
        _object(
            {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/$defs/x~1y", "$comment": "c"}},
            **{"$defs": {"x/y": {"multipleOf": 0.5}}},
        ),
        {"a": 1.5},
    ),
    (
        _object(
            {"a": {"$dynamicRef": "#n"}},
            **{"$defs": {"n": {"$dynamicAnchor": "n", "type": "integer"}}},
        ),
        {"a": 1},
    ),
    (
        _object(
            {"a": {"$anchor": "here", "type": "object"}},
            **{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {}},
        ),
        [{"a": {}}, {"a": None}],
    ),
    (
        _object(
            {
                "a": {
                    "$id": "https://example.com/a",
                    "minLength": 1,
                    "maxProperties": 3,
                    "propertyNames": {"pattern": "^a"},
                }
            }
        ),
        {"a": ""},
    ),
)

"""A model hub on loopback: as much of its protocol as publishing a folder takes, refusals included.

    with Hub() as hub:
        hub.token                                   # what a client must send
        hub.repositories["me/router"].files         # what was committed, by name
        hub.refuse["create"] = 403                  # answer so from now on

Repositories are created, described, and committed to; large files go by Git LFS, whose bytes are
held against their SHA-256 before a commit may name them.

Source: huggingface_hub, _commit_api.py and lfs.py; the Git LFS batch API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

LARGE = (".safetensors", ".gguf", ".bin")
"""Files that go by LFS, whatever their size."""


@dataclass
class Repository:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


class Hub:
    """The hub, in a thread, on a free port of 127.0.0.1."""

    def __init__(self, token: str = "hf_kit_secret") -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        """The files uploaded by LFS, by SHA-256."""
        self.refuse: dict[str, int] = {}
        """The HTTP status that refuses a step: create, info, preupload, batch, put or commit."""
        self.steps: list[str] = []

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # --- what the hub does, each step by its name ---

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = f"{body['organization']}/{body['name']}"
        url = {"url": f"{self.url}/{name}"}
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", **url}
        private = body.get("private") or body.get("visibility") == "private"
        self.repositories[name] = Repository(private=bool(private))
        return 200, url

    def info(self, name: str) -> tuple[int, Any]:
        kept = self.repositories[name]
        siblings = [{"rfilename": file} for file in kept.files]
        described = {"_id": "1", "id": name, "sha": "0" * 40, "private": kept.private}
        return 200, {**described, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}

    def preupload(self, body: dict[str, Any]) -> tuple[int, Any]:
        names = [file["path"] for file in body["files"]]
        modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in names}
        files = [
            {"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()
        ]
        return 200, {"files": files}

    def batch(self, body: dict[str, Any]) -> tuple[int, Any]:
        objects = []
        for one in body["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.objects:
                href = f"{self.url}/lfs/{one['oid']}"
                answer["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(answer)
        return 200, {"transfer": "basic", "objects": objects}

    def put(self, oid: str, data: bytes) -> tuple[int, Any]:
        if hashlib.sha256(data).hexdigest() != oid:
            return 400, {"error": "the bytes are not those of the digest"}
        self.objects[oid] = data
        return 200, {}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        kept = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                kept.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"{value['path']} was not uploaded"}
                kept.files[value["path"]] = self.objects[value["oid"]]
        kept.commits += 1
        url = f"{self.url}/{name}/commit/{kept.commits:040d}"
        return 200, {"commitUrl": url, "commitOid": f"{kept.commits:040d}", "success": True}


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub = self.served
        step, name = _step(self.command, self.path.partition("?")[0])
        hub.steps.append(step)
        status, payload = hub.refuse.get(step, 0), {"error": "refused by the kit"}
        known = self.headers.get("Authorization") == f"Bearer {hub.token}"
        # Bytes go to a store behind signed addresses, which asks for no token.
        if not status and not known and step != "put":
            status, payload = 401, {"error": "Invalid username or password."}
        if not status:
            status, payload = self._handle(step, name, data)
        self._send(status, payload)

    def _handle(self, step: str, name: str, data: bytes) -> tuple[int, Any]:
        hub = self.served
        match step:
            case "create":
                return hub.create(json.loads(data))
            case "put":
                return hub.put(name, data)
            case "validate":
                return 200, {"errors": [], "warnings": []}
            case "info" | "preupload" | "batch" | "commit" if name not in hub.repositories:
                return 404, {"error": "Repository not found"}
            case "info":
                return hub.info(name)
            case "preupload":
                return hub.preupload(json.loads(data))
            case "batch":
                return hub.batch(json.loads(data))
            case "commit":
                return hub.commit(name, [json.loads(line) for line in data.splitlines()])
        return 404, {"error": f"no such path: {self.path}"}

    def _send(self, status: int, payload: Any) -> None:
        body = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _step(method: str, path: str) -> tuple[str, str]:
    """The step of the protocol that a request is, and its repository or object."""
    match method, path.strip("/").split("/"):
        case "POST", ["api", "repos", "create"]:
            return "create", ""
        case "POST", ["api", "validate-yaml"]:
            return "validate", ""
        case "GET", ["api", "models", owner, name, *_]:
            return "info", f"{owner}/{name}"
        case "POST", ["api", "models", owner, name, "preupload" | "commit" as step, _]:
            return step, f"{owner}/{name}"
        case "POST", [owner, name, "info", "lfs", "objects", "batch"]:
            return "batch", f"{owner}/{name.removesuffix('.git')}"
        case "PUT", ["lfs", oid]:
            return "put", oid
    return "unknown", path

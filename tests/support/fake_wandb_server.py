"""A small stand-in for the W&B server on the loopback: it accepts everything, and keeps what it received."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

Told = list[tuple[str, dict[str, Any]]]  # operation or path, and what came with it

BUCKET = {
    "id": "bucket",
    "name": "run",
    "displayName": "run",
    "description": "",
    "config": "{}",
    "sweepName": "",
    "project": {"id": "project", "name": "demo", "entity": {"id": "entity", "name": "somebody"}},
    "historyLineCount": 0,
}


def answer(operation: str, variables: dict[str, Any], address: str) -> dict[str, Any]:
    """The answer of the server to one GraphQL operation."""
    if operation == "Viewer":
        person = {"id": "1", "entity": "somebody", "username": "somebody", "flags": "{}"}
        return {"viewer": {**person, "teams": {"edges": []}}}
    if operation == "UpsertBucket":
        return {"upsertBucket": {"bucket": BUCKET, "inserted": True}}
    if operation == "CreateRunFiles":
        named = [{"name": name, "uploadUrl": f"{address}/put/{name}"} for name in variables.get("files", [])]
        return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": named}}
    if operation == "ArtifactType":
        return {"project": None}  # no artifact of this name yet
    if operation == "CreateArtifact":
        made = {"id": "artifact", "state": "PENDING", "artifactSequence": {"id": "sequence", "latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}
    if operation == "CreateArtifactManifest":
        file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{address}/put/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}
    if operation == "CreateArtifactFiles":
        names = [file["name"] for file in variables["input"]["artifactFiles"]]
        places = [
            {
                "storagePath": f"store/{name}",
                "uploadUrl": f"{address}/put/{name}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": "artifact"},
            }
            for name in names
        ]
        edges = [{"node": place} for place in places]
        return {"createArtifactFiles": {"files": {"edges": edges}}}
    if operation == "CommitArtifact":
        return {"commitArtifact": {"artifact": {"id": "artifact", "digest": "d"}}}
    return {}


@contextmanager
def stand_in() -> Iterator[tuple[str, Told]]:
    """Run the stand-in; its address, and the list that fills with what it receives."""
    told: Told = []

    class Handler(BaseHTTPRequestHandler):
        @override
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _reply(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            self._reply({})

        def do_PUT(self) -> None:
            told.append((self.path, {"body": self._body()}))
            self._reply({})

        def do_POST(self) -> None:
            body = self._body()
            if self.path != "/graphql":
                told.append((self.path, json.loads(body) if body.startswith(b"{") else {"body": body}))
                return self._reply({})
            asked = json.loads(body)
            operation = str(asked.get("operationName") or asked["query"].split("(")[0].split("{")[0].split()[-1])
            variables = asked.get("variables") or {}
            told.append((operation, variables))
            self._reply({"data": answer(operation, variables, address)})
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, told
    finally:
        server.shutdown()
        server.server_close()

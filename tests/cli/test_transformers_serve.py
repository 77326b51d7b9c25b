"""`transformers serve` on the merged export answers over HTTP what the run itself answers."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tunelab.runs.run_dir import RunDirectory

PROGRAM = Path(sys.executable).with_name("transformers")
LACKING = [name for name in ("fastapi", "uvicorn", "openai") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(LACKING), reason=f"pip install -e '.[serve]': there is no {', '.join(LACKING)}"),
]


def request(address: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return str(answer.read().decode())


@pytest.fixture
def server(adapted: RunDirectory, tmp_path: Path) -> Iterator[str]:
    """The address of a server of the run's export."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "hub").mkdir()
    log = (tmp_path / "log").open("wb")
    command = [PROGRAM, "serve", str(adapted.export), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}, stdout=log, stderr=log
    )
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            try:
                request(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def test_a_served_export_answers_as_the_chat_does(server: str, adapted: RunDirectory, tunelab: Any) -> None:
    questions = ["say gold", "say red\tand blue"]
    said = tunelab("chat", adapted.root, "--max-new-tokens", "12", says="\n/reset\n".join(questions) + "\n")[1]

    for question, wanted in zip(questions, said.splitlines(), strict=True):
        body = {
            "model": str(adapted.export),
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 12,
        }
        answer = json.loads(request(f"{server}/v1/chat/completions", body))
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": wanted}
        pieces = [
            json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
            for line in request(f"{server}/v1/chat/completions", {**body, "stream": True}).splitlines()
            if line.startswith("data: {")
        ]
        assert "".join(pieces) == wanted

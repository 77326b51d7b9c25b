"""A headless chromium, controlled over a pipe: DevTools messages are JSON texts that end in a zero byte."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str | None:
    """Path of a chromium, if this machine has one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One page of a headless browser.

    Attributes:
        complaints: What the page wrote to the console as an error or a warning, and exceptions nobody caught.
        requests: Addresses that were requested.
    """

    def __init__(self, executable: str, profile: Path) -> None:
        """Start it, with a profile of its own."""
        (from_us, self._out), (self._in, to_us) = os.pipe(), os.pipe()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number, self._left = 0, b""
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]

        handing_over = "import os, sys; pair = [os.dup(int(fd)) for fd in sys.argv[1:3]]\n"
        handing_over += "os.dup2(pair[0], 3); os.dup2(pair[1], 4); os.set_inheritable(3, True)\n"
        handing_over += "os.set_inheritable(4, True); os.execv(sys.argv[3], sys.argv[3:])"
        self.process = subprocess.Popen(  # the browser listens on descriptor 3 and speaks on 4
            [sys.executable, "-c", handing_over, str(from_us), str(to_us), executable, *options,
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(from_us, to_us),
        )  # fmt: skip
        os.close(from_us)
        os.close(to_us)
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._out)
        os.close(self._in)

    def ask(self, method: str, **params: Any) -> Any:
        """Send one command, and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, f"{method}: {heard['error']}"
                return heard["result"]

    def look(self, *, width: int, dark: bool = False, height: int = 900) -> None:
        """Take the shape of a screen."""
        phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        """Load a file, to its end."""
        self.ask("Page.navigate", url=page.absolute().as_uri())
        while self.run("document.readyState") != "complete" or self.run("location.protocol") != "file:":
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, target: Path, most: int = 16000) -> bytes:
        """The whole page as PNG."""
        height = min(most, int(self.run("document.documentElement.scrollHeight")))
        width = int(self.run("innerWidth"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        target.write_bytes(base64.b64decode(found["data"]))
        return target.read_bytes()

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has gone"
            self._left += piece
        line, _, self._left = self._left.partition(b"\0")
        heard: dict[str, Any] = json.loads(line)
        self._note(heard.get("method"), heard.get("params", {}))
        return heard

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

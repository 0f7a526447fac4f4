"""A browser for tests: headless Chromium, told what to do through a pair of pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)  # fmt: skip

PIPES = """
import os, sys
for given, wanted in zip(sys.argv[1:3], (3, 4)):
    os.dup2(int(given), wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts a program that reads from descriptor 3 and writes to 4."""


def executable() -> str | None:
    """Where it is; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page.

    Attributes:
        said: what the page that was opened last wrote to the console, errors above all.
        requested: addresses that it asked for, without files and data in addresses.
    """

    def __init__(self, profile: Path):
        down, up = os.pipe(), os.pipe()
        command = [sys.executable, "-c", PIPES, str(down[0]), str(up[1]), str(executable())]
        command += [*FLAGS, f"--user-data-dir={profile}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(down[0], up[1]), stderr=quiet)
        os.close(down[0])
        os.close(up[1])
        self._in, self._out = os.fdopen(down[1], "wb"), os.fdopen(up[0], "rb")
        self._left, self._number, self._session = b"", 0, None
        self.said: list[str] = []
        self.requested: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._session = None
        with contextlib.suppress(OSError):
            self.call("Browser.close")
        self._process.wait(10)
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()

    def call(self, method: str, **params):
        """A command of the DevTools protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._in.write(json.dumps(message).encode() + b"\0")
        self._in.flush()
        while True:
            found = self._read()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]

    def _read(self):
        while b"\0" not in self._left:
            more = os.read(self._out.fileno(), 1 << 20)
            if not more:
                raise OSError("the browser is gone")
            self._left += more
        text, self._left = self._left.split(b"\0", 1)
        found = json.loads(text)
        method, params = found.get("method"), found.get("params", {})
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            self.requested += [] if url.startswith(("file:", "data:")) else [url]
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.said.append(str(params["args"]))
        elif method == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        return found

    def open(self, path: Path, fragment: str = "") -> None:
        """Show a file, and wait until its script has run."""
        self.call("Page.navigate", url="about:blank")
        self.said.clear()
        self.requested.clear()
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.run("new Promise(done => { const look = () => document.readyState === 'complete'"
                 " ? done(1) : setTimeout(look, 20); look(); })")  # fmt: skip

    def run(self, script: str):
        """The value of an expression; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def look(self, path: Path, width: int, height: int = 0, *, dark: bool = False) -> None:
        """A picture of the page at this width."""
        phone = width < 600
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])  # fmt: skip
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height or 900,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip
        self.run("new Promise(done => setTimeout(done, 300))")
        png = self.call("Page.captureScreenshot", captureBeyondViewport=not height)["data"]
        path.write_bytes(base64.b64decode(png))

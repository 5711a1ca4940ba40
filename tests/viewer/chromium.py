"""A page in headless Chromium, driven by its DevTools protocol: JSON over a pipe, NUL between."""

import base64
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""seconds for a step of the browser, which is far more than it takes"""
KEY_CODES = (
    {"PageUp": 33, "PageDown": 34, "End": 35, "Home": 36}
    | {
        f"Arrow{name}": code
        for name, code in {"Left": 37, "Up": 38, "Right": 39, "Down": 40}.items()
    }
    | {"Tab": 9, "Enter": 13}
)


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


class Page:
    """One page of a running Chromium; `events` is all that it has told since it was opened."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read = write, read
        self.rest = b""
        self.number = 0
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result; RuntimeError where Chromium refuses it."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") != self.number:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            data = os.read(self.read, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def find_events(self, method: str) -> list[dict[str, Any]]:
        """What the page has told of this kind."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def open(self, url: str, ready: str) -> None:
        """Load a page and wait until an expression is true in it."""
        self.call("Page.navigate", url=url)
        self.wait(ready)

    def wait(self, expression: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"still not true: {expression}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Until two frames have been drawn."""
        frames = "requestAnimationFrame(() => requestAnimationFrame(done))"
        self.evaluate(f"new Promise(done => {frames})")

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))

    def centre(self, selector: str) -> tuple[float, float]:
        """Of an element, which is scrolled into view."""
        x, y = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2] }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        return x, y

    def press(self, key: str, times: int = 1) -> None:
        code = KEY_CODES.get(key, 0)
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    code=key,
                    windowsVirtualKeyCode=code,
                    nativeVirtualKeyCode=code,
                )
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, selector: str) -> None:
        self.click_at(*self.centre(selector))

    def click_at(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)
        self.settle()

    def turn_wheel(self, selector: str, delta: float) -> None:
        self.mouse("mouseWheel", *self.centre(selector), deltaX=0, deltaY=delta)
        self.settle()

    def drag(
        self, selector: str, dx: float, dy: float, button: str = "left", modifiers: int = 0
    ) -> None:
        x, y = self.centre(selector)
        more = {"button": button, "modifiers": modifiers}
        self.mouse("mousePressed", x, y, clickCount=1, **more)
        self.mouse("mouseMoved", x + dx / 2, y + dy / 2, **more)
        self.mouse("mouseMoved", x + dx, y + dy, **more)
        self.mouse("mouseReleased", x + dx, y + dy, clickCount=1, **more)
        self.settle()

    def touch(self, selector: str, dx: float, dy: float) -> None:
        """A drag by one finger."""
        x, y = self.centre(selector)
        for kind, points in (
            ("touchStart", [(x, y)]),
            ("touchMove", [(x + dx / 2, y + dy / 2)]),
            ("touchMove", [(x + dx, y + dy)]),
            ("touchEnd", []),
        ):
            places = [{"x": a, "y": b} for a, b in points]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=places)
        self.settle()

    def resize(self, width: int, height: int, scheme: str = "light", fine: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=fine,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.settle()

    def photograph(self, path: Path, whole: bool = False) -> None:
        image = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(image))


@contextmanager
def start_chromium(program: str, profile: Path) -> Iterator[Page]:
    """A headless Chromium with a profile of its own, on file descriptors 3 (in) and 4 (out)."""
    pipes = [os.pipe(), os.pipe()]
    # Above 3 and 4, so that neither is overwritten before it is duplicated.
    from_us, to_browser, to_us, from_browser = (
        fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in pipes for end in pipe
    )
    for pipe in pipes:
        for end in pipe:
            os.close(end)
    command = [
        program,
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-sandbox",  # which needs rights that containers do not give
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={profile}",
    ]
    log = os.open(profile.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
    actions = [
        (os.POSIX_SPAWN_DUP2, *ends)
        for ends in ((from_us, 3), (from_browser, 4), (log, 1), (log, 2))
    ]
    process = os.posix_spawn(program, command, os.environ, file_actions=actions)
    for end in (from_us, from_browser, log):
        os.close(end)
    try:
        yield Page(to_browser, to_us)
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        os.close(to_browser)
        os.close(to_us)

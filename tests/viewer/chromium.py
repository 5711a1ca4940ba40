"""A page in headless Chromium, driven by its DevTools protocol: JSON over a pipe, NUL between."""

import base64
import json
import os
import shutil
import subprocess
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
    from_us, to_browser = os.pipe()
    to_us, from_browser = os.pipe()
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
        "about:blank",
    ]
    shell = f'exec "$@" 3<&{from_us} 4>&{from_browser}'
    with open(profile.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", shell, "sh", *command],
            pass_fds=(from_us, from_browser),
            stdout=log,
            stderr=log,
        )
    os.close(from_us)
    os.close(from_browser)
    try:
        yield Page(to_browser, to_us)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(to_browser)
        os.close(to_us)

"""A headless Chromium that is spoken to through its DevTools pipe: pages at any width, light or dark, judged by their DOM."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium is installed (apt-get install chromium)"

#: What lies outside the viewport (but for what scrolls in its own place), and pairs of texts that lie on each other.
FAULTS = """(wide => {
const faults = [], texts = [], name = node => (node.textContent || node.tagName).trim().slice(0, 40);
for (const node of document.body.querySelectorAll('*')) {
  if (node.closest('script, style, option, defs, #js-plotly-tester') || !node.checkVisibility({visibilityProperty: true})) continue;
  const place = node.closest('.scroll, pre'), box = node.getBoundingClientRect();
  if (box.width && (box.right > wide + 1 || box.left < -1) && (!place || place === node)) faults.push(`outside: ${node.tagName} ${name(node)}`);
  for (const child of node.childNodes) {
    if (child.nodeType !== 3 || !child.textContent.trim()) continue;
    const range = document.createRange();
    range.selectNodeContents(child);
    for (const part of range.getClientRects())
      if (part.width > 1 && part.height > 1) texts.push({part, name: name(child), place});
  }
}
texts.sort((a, b) => a.part.top - b.part.top);
texts.forEach((one, i) => {
  for (let j = i + 1; j < texts.length && texts[j].part.top < one.part.bottom - 4; j++) {
    const other = texts[j], across = Math.min(one.part.right, other.part.right) - Math.max(one.part.left, other.part.left);
    if (one.place === other.place && across > 2) faults.push(`overlap: ${one.name} | ${other.name}`);
  }
});
const whole = document.documentElement.scrollWidth;
if (whole > wide) faults.push(`scrolls sideways: ${whole} of ${wide}`);
for (const plot of document.querySelectorAll('.plotly-graph-div'))
  if (!plot.querySelector('.main-svg')) faults.push(`not drawn: ${plot.id}`);
return faults; })"""  # noqa: E501


#: Two frames and a moment: plotly draws in the next one.
SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 200))))"


class Browser:
    """A context; `faults` is what is wrong with a page, whose picture it keeps."""

    def __enter__(self) -> Browser:
        self._stack = contextlib.ExitStack()
        profile = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        told, self._write = os.pipe()
        self._read, heard = os.pipe()
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")
        line = f'exec "$0" "$@" 3<&{told} 4>&{heard}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, str(CHROMIUM), *options, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(told, heard), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(told)
        os.close(heard)
        self._number, self._rest, self._session = 0, b"", ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._stack.close()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                heard = os.read(self._read, 1 << 20)
                if not heard:
                    raise RuntimeError("Chromium has ended")
                self._rest += heard
            answer, _, self._rest = self._rest.partition(b"\0")
            known = json.loads(answer)
            if known.get("id") == self._number:
                if "error" in known:
                    raise RuntimeError(f"{method}: {known['error']['message']}")
                return dict(known["result"])

    def run(self, script: str) -> Any:
        """What a script in the page gives, awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def open(self, page: Path, width: int, dark: bool) -> None:
        """Show a file at a width, all its figures drawn."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while self.run("document.readyState + location.protocol") != "completefile:":
            time.sleep(0.05)
        self.run(SETTLED)

    def faults(self, page: Path, width: int, dark: bool, picture: Path) -> list[str]:
        """What is wrong with a page, folded and unfolded; its picture from top to bottom is left in a file."""
        self.open(page, width, dark)
        script = f"{FAULTS}({width})"
        found = list(self.run(script))
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, format="png", optimizeForSpeed=True)
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(base64.b64decode(shot["data"]))
        self.run("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
        self.run(SETTLED)
        return [*found, *(f"unfolded, {fault}" for fault in self.run(script))]

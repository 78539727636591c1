"""Take the picture of docs/comfyui.md: the example workflow on ComfyUI's own page, with an embedded model.

`python comfyui/development/picture.py ADDRESS FILE`, while `server.py` runs at ADDRESS (http://127.0.0.1:8188). Needs
Chromium and playwright.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

WORKFLOW = Path(__file__).resolve().parents[1] / "example_workflows" / "prompt_to_prompt_sd15.json"
CHANGES: dict[str, list[Any]] = {  # fields of nodes, in their order
    "PromptweaveLocalBlend": ["bike, car", "", 0.3, 0.2],
    "PromptweaveEdit": [
        "a photo of a cat riding a bike", "a photo of a cat riding a car", "auto", 2, "fixed", 8, 1.0, "simple", 128,
        128, "", True,
    ],
    "PromptweaveWordMask": ["cat", 1, 0.4],
}  # fmt: skip
SIZE = {"x": 70, "y": 85, "width": 1630, "height": 710}


def workflow() -> dict[str, Any]:
    """The example with the embedded model toybox-fast, and what it can draw."""
    made = json.loads(WORKFLOW.read_text())
    for node in made["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node.update(type="PromptweaveToybox", widgets_values=["toybox-fast"])
            node["properties"]["Node name for S&R"] = node["type"]
        node |= {"title": node["title"].replace("dog", "cat")} if "title" in node else {}
        node["widgets_values"] = CHANGES.get(node["type"], node["widgets_values"])
    return made


def main(address: str, file: str) -> None:
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 900})
        page.goto(address, wait_until="domcontentloaded")
        page.wait_for_function("window.app && window.app.graph", timeout=90_000)
        time.sleep(5)
        page.evaluate("app.extensionManager.setting.set('Comfy.Minimap.Visible', false)")
        page.evaluate("made => app.loadGraphData(made)", workflow())
        page.evaluate("app.queuePrompt(0, 1)")
        while True:
            time.sleep(2)
            queue = page.evaluate("fetch('/queue').then(found => found.json())")
            if not queue["queue_running"] and not queue["queue_pending"]:
                break
        page.evaluate("app.canvas.ds.scale = 0.86; app.canvas.ds.offset = [70, 50]; app.canvas.setDirty(true, true)")
        time.sleep(4)
        shot = Path(file).with_suffix(".png")
        page.screenshot(path=str(shot), clip=SIZE)  # pyright: ignore[reportArgumentType]
        browser.close()
    Image.open(shot).convert("RGB").save(file, quality=85)
    if shot != Path(file):
        shot.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

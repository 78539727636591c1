"""Use the page's HTTP API: start the page in this process, then talk to it as any other program would."""

import shutil
import sys
from pathlib import Path

from gradio_client import Client

from promptweave.apps.web import launch


def main(folder: Path = Path("out/examples/web"), steps: int = 25) -> None:
    page = launch(["toybox"], port=None, block=False)  # or: promptweave app --no-browser, in another terminal
    client = Client(page.local_url, verbose=False, analytics_enabled=False)
    source, target = "a photo of a cat riding a bike", "a photo of a cat riding a car"
    folder.mkdir(parents=True, exist_ok=True)
    print(client.predict(source, target, "toybox", api_name="/words")["kind"])
    picture, record = client.predict(source, 0, steps, "toybox", api_name="/generate")
    shutil.copy(picture, folder / "source.png")
    options = [0, steps, 0.8, 0.4, {"car": 1.5}, [], "toybox"]  # seed, steps, cross, self, weights, blend, model
    picture, record = client.predict(source, target, *options, api_name="/edit")
    shutil.copy(picture, folder / "edit.png")
    print(record["report"]["distance"])
    shutil.copy(client.predict(source, "cat", 0, steps, "toybox", api_name="/maps"), folder / "cat.png")
    client.close()
    page.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Write a control of your own: a word gets no attention in the first half of the run. Its images can be replayed."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import promptweave as pw


@dataclass(frozen=True)
class Silence(pw.Control):
    """Multiply the attention to `word` by zero while the image is laid out."""

    word: str

    def bind(self, run):
        factor = torch.ones(run.tokens, device=run.device, dtype=run.dtype)
        factor[list(run.words[1].find(self.word))] = 0

        class Silencing(pw.Hooks):
            def attention(self, step, site, rows):
                if site.kind == "self" or step not in pw.Window(0, 0.5):
                    return rows
                return rows.put("cond", 1, pattern=rows["cond"][1].pattern * factor)

        return Silencing()


def main(folder: Path = Path("out/examples/own"), steps: int = 50) -> None:
    prompt = "a photo of a cat wearing a crown in the forest"
    made = pw.edit(prompt, prompt, controls=[Silence("crown")], steps=steps)
    made.save(folder, force=True)
    assert pw.replay(folder / "edit.png").matches  # elsewhere: replay(..., allow_modules=["own_control"])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""Additions to `promptweave attend`: subjects found in the prompt, maps of both runs, loss curves."""

from __future__ import annotations

from typing import Any

from promptweave.apps.method import Asked, Made, Special


class Attend(Special):
    optional = ("words",)
    hidden = ("losses", "repeats")

    def prepare(self, asked: Asked) -> None:
        from promptweave.words.phrases import nouns

        if "words" not in asked.own:
            asked.own["words"] = nouns(asked.network.words(asked.prompts[0]).prompt)

    def pictures(self, asked: Asked, made: Made) -> dict[str, Any]:
        from promptweave.apps.steering import maps_of_both
        from promptweave.view.curves import curves

        terminal, report = asked.output.terminal, made.result.report["controls"][0]
        losses: dict[str, list[float]] = report["losses"]["0"]
        for name, values in losses.items():
            terminal.say(f"  {name}: loss {values[0]:.3f} at the first step, {values[-1]:.3f} at the last updated step")
        repeats = ", ".join(f"{count} at step {step}" for step, count in report["repeats"].items())
        terminal.say(f"  further updates: {repeats}" if repeats else "  no step needed more than one update")
        curve = curves(losses, title="loss of each subject: 1 - its maximum attention", across="step")
        return {"maps": maps_of_both(made.before, made.after, list(losses)), "losses": curve}


SPECIAL = Attend()

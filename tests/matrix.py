"""The support matrix of docs/models.md, written from what the tests of the families found."""

from __future__ import annotations

import re
from pathlib import Path

BEGIN, END = "<!-- matrix -->", "<!-- end of matrix -->"
COLUMNS = {  # test -> heading
    "test_without_controls_the_pipeline_is_diffusers_own": "as diffusers",
    "test_a_tap_that_changes_nothing_is_bit_identical": "sites",
    "test_words_are_found_in_every_encoder": "words",
    "test_equal_prompts_stay_equal_and_the_source_stays_itself": "word edits",
    "test_an_edit_with_a_weight_and_a_blend_keeps_the_source_outside": "weights, local blend",
    "test_weights_and_maps": "maps",
    "test_an_edit_of_a_recording_is_the_joint_run": "recording",
    "test_the_source_is_the_picture_in_every_family": "own pictures",
    "test_a_saved_folder_loads_as_the_same_family": "folder",
}


def parts(nodeid: str) -> tuple[str, str] | None:
    """(family, heading) of a test of the families."""
    found = re.search(r"::(\w+)\[(.+)\]$", nodeid)
    return (found[2], COLUMNS[found[1]]) if found and found[1] in COLUMNS else None


def table(outcomes: dict[tuple[str, str], str]) -> str:
    """The table in Markdown; a cell without a test is empty."""
    families = list(dict.fromkeys(family for family, _ in outcomes))
    headings = list(COLUMNS.values())
    signs = {"passed": "✓", "failed": "✗"}
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for family in families:
        cells = [signs.get(outcomes.get((family, heading), ""), "") for heading in headings]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, outcomes: dict[tuple[str, str], str]) -> None:
    """Put the table between the marks of a file."""
    text = path.read_text()
    before, rest = text.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{table(outcomes)}\n{END}{rest.split(END)[1]}")

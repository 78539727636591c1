"""The tables of docs/models.md: what each family does, and what users switch on, as the tests found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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


BEGIN_SWITCHES, END_SWITCHES = "<!-- switches -->", "<!-- end of switches -->"
FAMILIES = {"sd": "SD 1, 2", "sdxl": "SDXL", "sd3": "SD 3", "flux": "FLUX.1"}  # by the name of a test's parameter
EVERY = tuple(FAMILIES)
OFFLOAD, SWITCHED, USERS = (
    f"models/test_{name}.py" for name in ("offload_and_compile", "switched", "what_users_switch_on")
)


@dataclass(frozen=True)
class Switch:
    """Something users switch on: the test that tries it, for which families, and what a test that passes shows."""

    name: str
    file: str
    test: str
    families: tuple[str, ...] = EVERY
    sign: str = "✓"
    but: tuple[tuple[str, str], ...] = ()  # what it shows for other families
    skipped: str = ""  # what a test that is skipped shows
    begin: str = ""  # of the test's other parameter, if it has one
    whole: bool = False  # one test, without a family among its parameters, for all of them


QUANTISED = {"torchao, int8": "torchao-", "quanto, int8": "optimum.quanto-", "GGUF, Q8_0": "gguf-"}
SWITCHES = (
    Switch("Model CPU offload", OFFLOAD, "test_model_offload"),
    Switch("Sequential CPU offload", OFFLOAD, "test_sequential_offload", skipped="needs a GPU"),
    Switch("Group offload", USERS, "test_group_offload"),
    Switch("VAE tiling and slicing", USERS, "test_vae_tiling_and_slicing"),
    Switch("Channels-last", USERS, "test_channels_last"),
    Switch(
        "`torch.compile`", OFFLOAD, "test_a_compiled_network_is_steered_like_another", ("sd", "sd3"), whole=True,
    ),
    Switch("Fused QKV projections", USERS, "test_fused_projections", sign="refused", but=(("flux", "✓"),)),
    Switch("Attention slicing", "models/test_processors.py", "test_an_edit_under_attention_slicing_is_the_same",
           ("sd",), whole=True),
    Switch("Attention backends", SWITCHED, "test_the_chosen_backend_serves_tapped_layers", ("flux",), whole=True),
    Switch("LoRA through peft", "models/test_neighbours.py", "test_a_lora_acts_under_controls"),
    Switch("LoRA merged at loading", "test_toybox_fast.py", "test_peft_is_not_needed", ("sd",), whole=True),
    Switch("Textual inversion", "models/test_one_reading.py",
           "test_vectors_of_textual_inversion_are_read_as_diffusers_does", ("sd", "sdxl"), whole=True),
    Switch("fp8 layer-wise casting", SWITCHED, "test_layerwise_casting_is_the_network_with_rounded_weights"),
    *(
        Switch(name, USERS, "test_quantised_networks", ("sd", "sd3", "flux"), skipped="not installed", begin=begin)
        for name, begin in QUANTISED.items()
    ),
    Switch("Caches that skip layers", SWITCHED, "test_a_cache_is_refused_before_anything_runs", ("flux",), "refused",
           whole=True),
)  # fmt: skip


def cells() -> list[tuple[str, str]]:
    """(name, heading) of every cell that a test fills."""
    return [(switch.name, FAMILIES[family]) for switch in SWITCHES for family in switch.families]


def cell(nodeid: str) -> tuple[str, str] | None:
    """The cell that a test with a family among its parameters fills."""
    for switch in () if "[" not in nodeid else SWITCHES:
        for family in switch.families:
            if nodeid.endswith(f"{switch.file}::{switch.test}[{switch.begin}{family}]") and not switch.whole:
                return switch.name, FAMILIES[family]
    return None


def whole(nodeid: str) -> list[tuple[str, str]]:
    """The cells that a test fills alone."""
    named = nodeid.partition("[")[0]
    found = [switch for switch in SWITCHES if switch.whole and named.endswith(f"{switch.file}::{switch.test}")]
    return [(switch.name, FAMILIES[family]) for switch in found for family in switch.families]


def switches(outcomes: Mapping[tuple[str, str], str]) -> str:
    """The table of what users switch on in Markdown; a cell without a test is empty."""
    lines = ["| | " + " | ".join(FAMILIES.values()) + " |", "|---" * (len(FAMILIES) + 1) + "|"]
    for switch in SWITCHES:
        row: list[str] = []
        for family, heading in FAMILIES.items():
            passed = dict(switch.but).get(family, switch.sign)
            signs = {"passed": passed, "skipped": switch.skipped, "failed": "✗"}
            row.append(signs.get(outcomes.get((switch.name, heading), ""), ""))
        lines.append(f"| {switch.name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def note(outcomes: dict[tuple[str, str], str], nodeid: str, outcome: str) -> None:
    """Note what a test found; of several tests of one cell, the one that failed counts."""
    one = parts(nodeid) or cell(nodeid)
    for place in [one] if one else whole(nodeid):
        if outcomes.get(place) != "failed":
            outcomes[place] = outcome


def write(path: Path, outcomes: dict[tuple[str, str], str]) -> None:
    """Put the tables between the marks of a file."""
    families = {place: found for place, found in outcomes.items() if place not in cells()}
    found = {place: outcome for place, outcome in outcomes.items() if place in cells()}
    for begin, end, made in ((BEGIN, END, table(families)), (BEGIN_SWITCHES, END_SWITCHES, switches(found))):
        before, rest = path.read_text().split(begin)
        path.write_text(f"{before}{begin}\n{made}\n{end}{rest.split(end)[1]}")

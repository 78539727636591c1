"""The commands generate and edit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from promptweave.apps.common import (
    SETTINGS,
    Comparing,
    Given,
    Opening,
    Output,
    Prompt,
    Targets,
    folder,
    recipe_of,
    steps_of,
)
from promptweave.apps.flags import Flags, command
from promptweave.apps.telling import tell, tell_image
from promptweave.apps.terminal import table
from promptweave.core.fields import Option

PROMPT_TO_PROMPT = "promptweave.editing.options:PromptToPrompt"


@dataclass(frozen=True)
class Sources:
    """Sources of edits other than a source prompt."""

    recording: Annotated[
        Path | None,
        Option(
            "Edit a recording or an inverted image, with its model; all prompts are then targets.",
            group="Image", metavar="FILE",
        ),
    ] = None  # fmt: skip
    jobs: Annotated[
        Path | None, Option("Run a file of edits, one JSON object per line.", group="Advanced", metavar="FILE")
    ] = None
    rows: Annotated[int, Option("Images per forward pass with --jobs.", low=1, group="Advanced")] = 8
    at_once: Annotated[
        bool,
        Option(
            "With --jobs: start with the first lines while later ones are not checked yet; wrong lines are named at "
            "the end, and the others are run.",
            group="Advanced",
        ),
    ] = False


@dataclass(frozen=True)
class Searching:
    """Whether the strengths are searched."""

    auto: Annotated[
        bool,
        Option(
            "Search the strengths that are not given (cross, self, joint, strength, structure, blend, threshold), for "
            "at most four edits' work, and write their front.",
            group="How strongly",
        ),
    ] = False
    judge: Annotated[
        str | None,
        Option(
            "Who judges the edits of --auto: oracle (of the embedded models' world), clip or clip:FOLDER, or maps (of "
            "attention). [the first of these that can]",
            group="Advanced", metavar="NAME",
        ),
    ] = None  # fmt: skip


@command(settings=SETTINGS, opening=Flags(Opening), output=folder("generate"))
def generate(prompt: Prompt, /, *, settings: dict[str, Any], opening: Opening, output: Output) -> None:
    """Generate an image from a prompt."""
    from promptweave.editing.edit import run
    from promptweave.editing.recorders import edit_watch

    output.check()
    network = opening.load()
    recipe = recipe_of(network, prompt, (), settings)
    watch = edit_watch(recipe, network) if output.report else ()
    with output.terminal.progress("generating", recipe.steps) as advance:
        result = run(recipe, network, watch=watch, progress=advance)
    output.save(result)


@command(
    options=Flags(PROMPT_TO_PROMPT), settings=SETTINGS, given=Flags(Given), sources=Flags(Sources),
    searching=Flags(Searching), comparing=Flags(Comparing), opening=Flags(Opening), output=folder("edit"),
)  # fmt: skip
def edit(
    source: Annotated[str | None, Parameter(help="Prompt of the source image.")] = None,
    /,
    *targets: Targets,
    options: dict[str, Any],
    settings: dict[str, Any],
    given: Given,
    sources: Sources,
    searching: Searching,
    comparing: Comparing,
    opening: Opening,
    output: Output,
) -> None:
    """Edit an image by changing its prompt: only what the changed words name changes."""
    if sources.jobs is not None:
        if source is not None:
            raise ValueError(f"--jobs takes its prompts from the file. Received {source!r} too. Leave it out.")
        without = {
            "--recording": sources.recording, "--compare": comparing.compare, "--report": output.report,
            "--caption": given.caption, "--captioner": given.captioner, "--auto": searching.auto,
            "--judge": searching.judge,
        }  # fmt: skip
        for flag, asked in without.items():
            if asked:
                raise ValueError(f"--jobs runs without {flag}. Leave {flag} out, or edit that line alone.")
        image = {} if given.image is None else {"image": str(given.image.absolute())}
        _jobs(sources, {**options, **settings, **given.options, **image}, opening, output)
        return
    if sources.at_once:
        raise ValueError("--at-once is an option of --jobs, and there is none. Leave it out, or give --jobs FILE.")
    if searching.judge is not None and not searching.auto:
        raise ValueError(
            "--judge says who judges the edits of --auto, which is not given. Leave it out, or give --auto."
        )
    if searching.auto and comparing.compare:
        raise ValueError("--auto runs without --compare: its front shows edits with less control. Leave --compare out.")
    output.check()
    if given.caption and sources.recording is not None:
        raise ValueError("A recording has its source prompt. Received --caption too. Leave it out.")
    prompts = given.first(
        given.image, (*(() if source is None else (source,)), *targets), opening, output.terminal, settings
    )
    source, targets = (prompts[0], prompts[1:]) if prompts else (None, ())
    if source is None:
        raise ValueError(
            "An edit needs a source prompt and a target. Received none. Write promptweave edit SOURCE TARGET."
        )
    from promptweave.editing.edit import edit as make
    from promptweave.editing.sources import load_source

    recorded = None if sources.recording is None else load_source(sources.recording)
    network = opening.load(None if recorded is None else recorded.recipe)
    if sources.recording is not None and network.device.type != "cpu":
        recorded = load_source(sources.recording, network.device)
    steps = steps_of(settings, network) if recorded is None else recorded.recipe.steps
    given.announce(output.terminal, network, settings)
    prompts = targets if recorded is None else (source, *targets)
    if searching.auto:
        _search(recorded or source, prompts, network, options, settings, given, searching, output, steps)
        return
    with output.terminal.progress("editing", given.passes(steps)) as advance:
        result = make(
            recorded or source, *prompts, model=network,
            compare=comparing.compare, maps=output.report, progress=advance, **given.options, **options, **settings,
        )  # fmt: skip
    _tell_edit(output.terminal, result)
    output.save(result)


def _search(
    source: Any, targets: tuple[str, ...], network: Any, options: dict[str, Any], settings: dict[str, Any],
    given: Given, searching: Searching, output: Output, steps: int,
) -> None:  # fmt: skip
    """Search the strengths; write the edit that is picked, and the front."""
    from promptweave.finding.find import find
    from promptweave.finding.search import EDITS

    if len(targets) > 1:
        raise ValueError(f"--auto searches the strengths of one target. Received {len(targets)}. Run it for each.")
    total = given.passes(steps) + (2 * EDITS - 1) * steps
    with output.terminal.progress("searching", total) as advance:
        found = find(
            source, targets[0] if targets else None, model=network, judge=searching.judge or "auto",
            maps=output.report, progress=advance, **given.options, **options, **settings,
        )  # fmt: skip
    terminal = output.terminal
    _tell_edit(terminal, found.result)
    rows = [
        (p.said, f"{p.verdict.score:.2f}", f"{p.verdict.kept:.3g}", "picked" if p is found.pick else "")
        for p in sorted(found.points, key=lambda p: -p.verdict.kept)
    ]
    terminal.say(table(f"tried, for the work of {found.cost:.1f} edits", ("", "made", found.measure, ""), rows))
    terminal.say(found.why)
    from promptweave.maps.html_report import html_report

    files = found.save(
        output.output, force=output.force, pages={"report.html": html_report(found.result)} if output.report else {}
    )
    terminal.give({"files": [str(path) for path in files], "found": found.record, **found.result.record})
    terminal.say(*(f"wrote {path}" for path in files))


def _tell_edit(terminal: Any, result: Any) -> None:
    """Print what an edit changed, target by target, and what its controls did."""
    from promptweave.methods import Reweight

    tell_image(terminal, result.report)
    weights: dict[str, float] = {}
    for control in result.recipe.controls:
        weights |= control.weights if isinstance(control, Reweight) else {}
    for number, pairs in enumerate(result.report["alignment"], 1):
        rows = [(pair["kind"], pair["source"], pair["target"]) for pair in pairs if pair["kind"] != "kept"]
        distance = result.report["distance"][number - 1][0]
        title = f"target {number}: {result.recipe.targets[number - 1]}"
        rows += [("re-weighted", word, f"x {factor:g}") for word, factor in weights.items()]
        terminal.say(table(title, ("", "source", "target"), rows) if rows else f"{title}: the same words")
        terminal.say(
            f"  {distance['changed_pixels']:.0%} of the pixels changed, PSNR to the source {distance['psnr']:.1f} dB"
        )
    tell(terminal, result.report)


def _jobs(sources: Sources, defaults: dict[str, Any], opening: Opening, output: Output) -> None:
    """Run a file of jobs, each into its own subfolder of the output; `defaults` are for lines without these options."""
    from promptweave.editing.job_file import check_file
    from promptweave.editing.jobs import read_jobs, run_jobs

    assert sources.jobs is not None
    check_file(sources.jobs)
    output = replace(output, output=output.usual or output.output)  # a stopped run is continued there
    output.check_folder()
    network, terminal = opening.load(), output.terminal
    jobs = read_jobs(sources.jobs, network, defaults=defaults, check=False)
    if not sources.at_once:
        with terminal.progress("checking", len(jobs)) as advance:
            jobs.check(advance)
    there, near = list[str](), list[float]()

    def note(job: Any, result: Any) -> None:
        if result is None:
            there.append(job.name)
        elif "psnr" in result.report.get("picture", {}):
            near.append(result.report["picture"]["psnr"])
        advance(None, None)

    with terminal.progress("jobs", len(jobs)) as advance:
        folders = run_jobs(
            jobs, network, output.output, rows=sources.rows, force=output.force, check=not sources.at_once, done=note
        )  # fmt: skip
    if near:
        terminal.say(f"  PSNR of the sources to their input images: {min(near):.1f} to {max(near):.1f} dB")
    terminal.give({"folders": [str(folder) for folder in folders], "there_already": there})
    terminal.say(f"{len(folders) - len(there)} jobs run, {len(there)} already done, in {output.output}")

"""The page of a benchmark: what it holds, and what its script makes of it in a browser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptweave.benchmarks.run_report import run_report, write_run_report
from promptweave.evaluate.edit_rows import EditRow, means, write_edit_rows
from promptweave.evaluate.published_rows import comparison, published_ranges, published_rows

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs, a curve of two strengths, a way that fails, a title that is no HTML."""
    path = tmp_path_factory.mktemp("run")
    for name, colour in (("source", 40), ("edit", 200)):
        Image.fromarray(np.full((600, 300, 3), colour, np.uint8)).save(path / f"{name}.png")
    rows: list[EditRow] = []
    for cross in (0.2, 0.8):
        for number in range(3):
            figures = {"psnr": 20 + 10 * cross + number, "clip_whole": 25 - 5 * cross, "mse": math.nan}
            rows.append(
                EditRow(
                    "pie", f"00{number}", ("change object", "change style")[number % 2], "p2p", "direct", "toybox",
                    "a cat", "</script><b>a dog</b>", settings={"cross": cross, "steps": 8}, strength=cross,
                    figures=figures, images={"source": "source.png", "edit": "edit.png"}, seconds=1.0 + number,
                )
            )  # fmt: skip
    rows.append(
        EditRow("pie", "000", "change object", "pnp", "ddim", "toybox", "a cat", "a dog", failure="No such word.")
    )
    write_edit_rows(path / "rows.parquet", rows)
    return path


def data_of(page: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found)


def test_the_page_holds_the_run_and_nothing_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    page = run_report(folder)
    data = data_of(page)
    assert [way["line"] for way in data["ways"]] == ["direct + p2p, steps 8"] * 2 + ["ddim + pnp"]
    assert [row["figures"] for row in data["rows"]][0] == [22.0, None, 24.0] and len(data["rows"]) == 7
    assert (data["kept"], data["reached"]) == ("psnr", "clip_whole") and len(data["published"]) == 11
    assert all(len(row["images"]) == 2 for row in data["rows"][:6]) and data["rows"][6]["images"] == []
    assert "SSIM x1e2" in page and not re.search(r'(src|href)="http|<script src', page)
    assert "<b>a dog</b>" not in page.replace(json.dumps(data), "").split('id="data"')[0]
    few = data_of(run_report(folder, shown=1))
    assert [bool(row["images"]) for row in few["rows"]] == [True, False, True, True, False, True, False]
    path = write_run_report(folder, tmp_path / "page.html")
    assert path.read_text("utf-8") == page


def test_what_is_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no benchmark"):
        run_report(tmp_path)
    write_edit_rows(tmp_path / "rows.jsonl", [])
    with pytest.raises(ValueError, match="nothing has been edited yet"):
        run_report(tmp_path)


def test_rows_of_other_benchmarks_make_a_page(tmp_path: Path) -> None:
    """As `bench world` writes them: parts of rows, figures of its own, no images."""
    for number in range(2):
        row = EditRow(
            "world", "tuning 1", "swap", "p2p", "", "toybox", "a", "b", figures={"success": float(number), "psnr": 20.0}
        )
        write_edit_rows(tmp_path / f"toybox/rows/{number}.jsonl", [row])
    data = data_of(run_report(tmp_path))
    assert (data["kept"], data["reached"], data["published"]) == ("psnr", "success", []) and len(data["rows"]) == 2


def test_means_stand_beside_what_is_published() -> None:
    row = EditRow("pie", "0", "", "p2p", "null-text:rounds=5", "x", "", "", figures={"psnr": 20.0, "mse": 0.00351})
    head, lines = comparison(means([row, EditRow("pie", "0", "", "none", "", "x", "", "", failure="No.")]))
    assert head == ["", "pairs", "PSNR", "MSE x1e4"]
    assert lines[0] == ["null-text:rounds=5 + p2p", "1", "20.00", "35.10"]
    assert lines[1] == ["  published: null-text + Prompt-to-Prompt", "700", "27.03", "35.86"]
    assert lines[2] == ["none", "0", "", ""]
    assert {len(one.figures) for one in published_rows()} == {7}
    assert published_ranges()["flow"] == ("FlowEdit", 23.2, 26.6)


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"the page is tested in {CHROMIUM}: apt-get install chromium")
def test_the_page_in_a_browser(folder: Path) -> None:
    """Filters, sorting and curves work on a narrow screen, from disk; nothing is wider than the screen."""
    from playwright.sync_api import sync_playwright

    file, errors = write_run_report(folder), list[str]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        lines = page.locator("#table tbody tr").all_inner_texts()
        assert len(lines) == 6 and lines[1].startswith("published: direct + Prompt-to-Prompt\t700\t27.22")
        assert page.locator("#plot circle").count() == 2 and page.locator("#plot path").count() == 1
        assert "No such word." in page.locator("#failed").inner_text()
        assert page.locator("#best figure").count() == 2 and page.locator("#worst figure").count() == 1
        assert "a cat" in page.locator("#worst").inner_text() and "<b>a dog</b>" in page.locator("#worst").inner_text()
        page.get_by_role("button", name="PSNR", exact=True).click()
        assert "cross 0.8" in page.locator("#table tbody tr").first.inner_text()
        page.select_option("#category", "change style")
        assert [line.split("\t")[1] for line in page.locator("#table tbody tr").all_inner_texts()] == ["1", "1"]
        assert page.locator("#failures").is_hidden()
        page.select_option("#method", "pnp")
        assert (
            page.locator("#table tbody tr").count() == 0 and "No way of editing" in page.locator("#plot").inner_text()
        )
        browser.close()
    assert not errors

"""docs/tour.ipynb runs from top to bottom, and what is committed is its output."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = Path(__file__).parents[1] / "docs" / "tour.ipynb"
FEW = ("STEPS = 50", "STEPS = 6")


def kinds(cell) -> list[str]:
    return sorted(kind for output in cell.outputs for kind in output.get("data", {output.output_type: None}))


def test_the_tour(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1] / "src"))
    committed, fresh = (nbformat.read(NOTEBOOK, 4) for _ in range(2))
    assert sum(FEW[0] in cell.source for cell in fresh.cells) == 1
    for cell in fresh.cells:
        cell.source = cell.source.replace(*FEW)
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [
        (kinds(old), kinds(new)) for old, new in zip(committed.cells, fresh.cells, strict=True) if "outputs" in old
    ]
    assert all(old == new for old, new in shown) and sum("image/jpeg" in new for _, new in shown) >= 10
    assert (tmp_path / "out/tour/report.html").stat().st_size > 100_000


def test_the_committed_tour_is_small_and_without_errors():
    assert NOTEBOOK.stat().st_size < 1_000_000
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs and all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)

"""A benchmark by workers that Ray Data starts, on the machines of a cluster or on this one (extra 'batch').

Each worker loads the model once, and gets the pairs one by one; the edits of a pair are made by the same code that runs
without Ray. The data and the output folder must be on a file system that all machines share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from promptweave.benchmarks.field_folder import RunFolder
from promptweave.benchmarks.field_run import Evaluation, gathered, prepared, read_pairs
from promptweave.models.base import Model


def benchmark_on_ray(
    data: Path, load: Callable[[], Model], *, workers: int, output: Path,
    progress: Callable[[None, int], object] | None = None, **how: Any,
) -> Evaluation:  # fmt: skip
    """`benchmark` by so many workers, each with a GPU if the cluster has any. `load` gives each its model.

    `progress(None, count)` is called after each of `count` pairs. Raises ImportError without the extra 'batch', and
    what a worker raises.
    """
    ray = _ray()
    data, output = data.absolute(), output.absolute()
    name, pairs = read_pairs(data, how.get("kinds", ()), how.get("limit"))

    class Work:
        """One worker."""

        def __init__(self) -> None:
            self.worker, self.units = prepared(data, model=load(), output=output, **how)

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
            (place,) = batch["item"]
            own = [unit for unit in self.units if unit.pair.name == pairs[int(place)].name]
            self.worker.work(own, lambda row: None)
            said = "\n".join(self.worker.judges.missing)
            return {"place": [int(place)], "keys": ["\n".join(unit.key for unit in own)], "missing": [said]}

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    items = ray.data.from_items(list(range(len(pairs))), override_num_blocks=len(pairs))
    rows: list[dict[str, Any]] = []
    for row in items.map_batches(Work, batch_size=1, concurrency=workers, num_gpus=gpus).iter_rows():
        rows.append(row)
        if progress:
            progress(None, len(pairs))
    rows.sort(key=lambda row: row["place"])
    edits = [(key, pairs[row["place"]].name) for row in rows for key in row["keys"].split("\n")]
    return gathered(name, RunFolder(output), edits, tuple(filter(None, rows[0]["missing"].split("\n"))))


def _ray() -> Any:
    try:
        import ray
        import ray.data  # noqa: F401 - what is used of it
    except ImportError as missing:
        raise ImportError(
            "Workers on a cluster need the extra 'batch'. Install it with: pip install 'promptweave[batch]'; or start "
            "the command several times on one output folder."
        ) from missing
    return ray

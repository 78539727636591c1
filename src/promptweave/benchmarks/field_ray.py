"""A benchmark by workers that Ray Data starts, on the machines of a cluster or on this one (extra 'batch').

Each worker loads the model once and calls `benchmark` on the shared folder, whose locks give every edit to one of them:
the same code that runs without Ray. The folder must be on a file system that all machines share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from promptweave.benchmarks.field_folder import ROWS
from promptweave.benchmarks.field_run import Evaluation, benchmark
from promptweave.evaluate.edit_rows import means, read_edit_rows
from promptweave.models.base import Model


def benchmark_on_ray(data: Path, load: Callable[[], Model], *, workers: int, output: Path, **how: Any) -> Evaluation:
    """`benchmark` by so many workers, each with a GPU if the cluster has any. `load` gives each its model.

    Raises ImportError without the extra 'batch', and what a worker raises.
    """
    ray = _ray()
    data, output = data.absolute(), output.absolute()

    class Work:
        """One worker."""

        def __init__(self) -> None:
            self.model = load()

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
            found = benchmark(data, model=self.model, output=output, **how)
            return {"name": [found.benchmark], "missing": ["\n".join(found.missing)]}

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    items = ray.data.from_items(list(range(workers)), override_num_blocks=workers)
    (first, *_) = items.map_batches(Work, batch_size=1, concurrency=workers, num_gpus=gpus).take_all()
    rows = read_edit_rows(output / ROWS)
    missing = tuple(filter(None, str(first["missing"]).split("\n")))
    return Evaluation(str(first["name"]), rows, means(rows), missing, output)


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

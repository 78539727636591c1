"""What the figures of `bench segments` are made of, for a moment on the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from promptweave.apps.cli import main
from promptweave.benchmarks.bench_segments import HOT, REFINED, Row, cells, options_of
from promptweave.world.scene import Scene


def test_a_moment(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "segments", "noised 0.5", "--model", "toybox-fast", "--count", "1", "--pictures", str(tmp_path)])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "noised 0.5" in said and "A^2" in said
    drawn = np.asarray(Image.open(tmp_path / "segments.webp"))
    assert drawn.shape[1] > 2 * 128


def test_ways_and_means():
    scene = Scene("beach", "photo", "alone", ())
    assert options_of("noised 0.1,0.3", scene) == {"times": (0.1, 0.3)} and options_of("noised", scene) == {}
    assert options_of("concepts cross", scene)["background"] == ("beach",)
    assert options_of("direct", scene)["inversion"] == "direct"
    rows = [Row("noised", times, n, (0.2 + n / 2, 0.4), 0.5, 1.0 + n) for n in (0, 1) for times in (*REFINED, -1)]
    made = cells(rows)
    assert made[0] == ("noised", "none", "0.425", "0.500", "1.50", "2") and made[-1][1:4] == (HOT, "0.425", "")

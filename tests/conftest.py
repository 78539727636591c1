"""A pipeline of the true classes with tiny random weights, built in code: no download, milliseconds per step."""

from __future__ import annotations

from pathlib import Path

import matrix
import pytest
import torch
import type_checks  # noqa: F401  it watches the imports of the package that follow
from hypothesis import settings
from tiny import SENTENCES, build_tiny

from promptweave.models.unet import UNetModel
from promptweave.world.build import build_tokenizer

torch.set_num_threads(1)
settings.register_profile("steady", deadline=None, derandomize=True)  # the same on every machine, busy or not
settings.load_profile("steady")
OUTCOMES: dict[tuple[str, str], str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--support-matrix", type=Path, help="file to write the families' support matrix into")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        matrix.note(OUTCOMES, report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--support-matrix")
    if path:
        matrix.write(path, OUTCOMES)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return build_tokenizer(SENTENCES * 3, tmp_path_factory.mktemp("tokenizer"), 340)


@pytest.fixture(scope="session")
def tiny(tokenizer) -> UNetModel:
    return UNetModel(build_tiny(tokenizer), "tiny")


@pytest.fixture(scope="session")
def tiny64(tokenizer) -> UNetModel:
    """The same weights in double precision."""
    return UNetModel(build_tiny(tokenizer).to(torch.float64), "tiny64")


@pytest.fixture(scope="session")
def tiny_v(tokenizer) -> UNetModel:
    return UNetModel(build_tiny(tokenizer, prediction="v_prediction"), "tiny_v")


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    build_tiny(tokenizer).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture()
def noise64() -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

"""Annotations of the package are checked while the tests run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor
from type_checks import checked

from promptweave.core.gaussian import gaussian
from promptweave.core.pattern import Pattern


def joined(a: Float[Tensor, "rows inner"], b: Float[Tensor, "inner columns"]) -> Float[Tensor, "rows columns"]:
    return a @ b if len(a) > 1 else b


def counted(number: int) -> Iterator[int]:
    return iter(range(int(number)))


@dataclass
class Held:
    value: int
    tensor: Float[Tensor, "n n"] | None = None

    @checked
    def twice(self, times: int = 2) -> Self:
        return type(self)(self.value * times, self.tensor)


@pytest.mark.parametrize(
    ("function", "wrong", "right"),
    [
        (joined, (torch.ones(2, 3), torch.ones(2, 3)), (torch.ones(2, 3), torch.ones(3, 2))),  # names across arguments
        (joined, (torch.ones(1, 3), torch.ones(3, 2)), (torch.ones(3, 3), torch.ones(3, 2))),  # and with the result
        (joined, (torch.ones(2, 3).int(), torch.ones(3, 2)), (torch.ones(2, 3), torch.ones(3, 2))),
        (counted, ("3",), (3,)),
        (Held, ("3",), (3,)),
        (Held, (3, torch.ones(2, 3)), (3, torch.ones(2, 2))),
    ],
)
def test_what_is_checked(function: Any, wrong: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    with pytest.raises(TypeCheckError):
        checked(function)(*wrong)
    checked(function)(*right)


def test_functions_and_classes_of_the_package_are() -> None:
    with pytest.raises(TypeCheckError):
        gaussian("1", 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeCheckError):
        Pattern("q", "k")  # pyright: ignore


def test_a_method_that_gives_its_own_kind() -> None:
    assert Held(2).twice().value == 4
    with pytest.raises(TypeCheckError):
        Held(2).twice("2")  # pyright: ignore[reportArgumentType]

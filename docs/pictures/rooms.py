"""The drawing of docs/architecture.md: the rooms of the package by floors, read from tests/test_layers.py."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

from promptweave.view.sheet import font, wrapped

ROOT = Path(__file__).parents[2]
PAPER, INK, FAINT, LINE = (255, 255, 255), (28, 30, 38), (106, 112, 128), (92, 104, 140)
FLOORS = (
    (226, 240, 235),
    (224, 236, 249),
    (238, 233, 249),
    (252, 240, 222),
    (250, 230, 232),
)  # tints, from the ground floor up
SCALE = 3  # everything is drawn larger and reduced, for smooth curves
WIDTH, HEIGHT, LANE = 236, 94, 26  # of a room; of the gap that an arrow takes where it passes a floor
ACROSS, BETWEEN, MARGIN, FAN = 26, 54, 28, 40  # FAN: between the arrows that leave a room

Arrows = dict[str, set[str]]
Node = str | tuple[str, str, int]  # a room, or the place where an arrow (from, to) passes a floor


def allowed() -> Arrows:
    """ROOMS of tests/test_layers.py: which room may import what."""
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text())
    (value,) = [n.value for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "ROOMS"]
    assert value is not None
    return eval(ast.unparse(value), {"set": set})


def purposes(names: Sequence[str]) -> dict[str, str]:
    """The first sentence of each room's docstring."""
    found = {name: ast.get_docstring(ast.parse((_home(name) / "__init__.py").read_text())) or "" for name in names}
    return {name: text.split(". ")[0].replace("`", "").rstrip(".") for name, text in found.items()}


def _home(name: str) -> Path:
    return ROOT / "src" / "promptweave" / name


def floors(arrows: Arrows) -> dict[str, int]:
    """The floor of each room: one above the highest room that it imports."""
    found: dict[str, int] = {}
    for room in arrows:  # the list has the lowest first
        found[room] = 1 + max((found[other] for other in arrows[room]), default=-1)
    return found


def needed(arrows: Arrows) -> list[tuple[str, str]]:
    """The arrows that no way through other rooms implies."""

    def reach(room: str) -> set[str]:
        return arrows[room].union(*(reach(other) for other in arrows[room]))

    return [
        (room, other)
        for room, others in arrows.items()
        for other in sorted(others)
        if not any(other in reach(third) for third in others)
    ]


@dataclass
class Plan:
    """Where everything stands: nodes by floor, from left to right, and the ways of the arrows."""

    layers: list[list[Node]]
    ways: list[list[Node]]

    @classmethod
    def of(cls, arrows: Arrows) -> Plan:
        level = floors(arrows)
        layers: list[list[Node]] = [
            [room for room in arrows if level[room] == n] for n in range(max(level.values()) + 1)
        ]
        ways: list[list[Node]] = []
        for room, other in needed(arrows):
            through: list[Node] = [(room, other, n) for n in range(level[room] - 1, level[other], -1)]
            for node in through:
                layers[node[2] if isinstance(node, tuple) else 0].append(node)
            ways.append([room, *through, other])
        return cls(layers, ways).sorted()

    def sorted(self, rounds: int = 24) -> Plan:
        """The order with the fewest crossings that sorting each floor by its neighbours' places comes upon."""
        best, least = [list(layer) for layer in self.layers], self.crossings()
        for turn in range(rounds):
            for number in range(len(self.layers)) if turn % 2 else reversed(range(len(self.layers))):
                place = self._places()
                beside = number - 1 if turn % 2 else number + 1
                self.layers[number].sort(key=lambda node: self._mean(node, beside, place))  # noqa: B023
            if self.crossings() < least:
                best, least = [list(layer) for layer in self.layers], self.crossings()
        return Plan(best, self.ways)

    def crossings(self) -> int:
        """How often two arrows cross."""
        place, level = self._places(), {node: n for n, layer in enumerate(self.layers) for node in layer}
        steps = [pair for way in self.ways for pair in pairwise(way)]
        return sum(
            (place[a] - place[c]) * (place[b] - place[d]) < 0
            for i, (a, b) in enumerate(steps)
            for c, d in steps[i + 1 :]
            if level[a] == level[c]
        )

    def _places(self) -> dict[Node, float]:
        return {node: (i + 0.5) / len(layer) for layer in self.layers for i, node in enumerate(layer)}

    def _mean(self, node: Node, floor: int, place: dict[Node, float]) -> float:
        steps = [pair for way in self.ways for pair in pairwise(way) if node in pair]
        near = [other for pair in steps for other in pair if other != node]
        if 0 <= floor < len(self.layers):
            near = [other for other in near if other in self.layers[floor]]
        return sum(place[other] for other in near) / len(near) if near else place[node]

    def columns(self, width: float) -> dict[Node, float]:
        """The middle of each node: near its neighbours, and apart from those beside it."""
        x = {node: (i + 0.5) / len(layer) * width for layer in self.layers for i, node in enumerate(layer)}
        for _ in range(200):
            for layer in self.layers:
                for node in layer:
                    near = [o for way in self.ways for pair in pairwise(way) if node in pair for o in pair if o != node]
                    if isinstance(node, tuple):  # an arrow that passes several floors goes straight down
                        near = [other for other in near if isinstance(other, tuple)] or near
                    x[node] += 0.5 * (sum(x[other] for other in near) / len(near) - x[node]) if near else 0
                self._apart(layer, x, width)
        return x

    @staticmethod
    def _apart(layer: list[Node], x: dict[Node, float], width: float) -> None:
        half = {node: (WIDTH if isinstance(node, str) else LANE) / 2 for node in layer}
        for _ in range(60):
            for left, right in pairwise(layer):
                over = x[left] + half[left] + ACROSS + half[right] - x[right]
                if over > 0:
                    x[left], x[right] = x[left] - over / 2, x[right] + over / 2
            for node in layer:
                x[node] = min(max(x[node], half[node]), width - half[node])


def rooms() -> Image.Image:
    """The rooms by floors: an arrow goes from a room to one that it imports."""
    allowed_ = allowed()
    arrows = {room: {other.split(".")[0] for other in others} for room, others in allowed_.items()}
    plan, says = Plan.of(arrows), purposes(list(arrows))
    inner = 3 * (WIDTH + ACROSS) + 3 * LANE
    x = plan.columns(inner)
    top = len(plan.layers) - 1
    left = MARGIN + 26
    size = (left + inner + MARGIN, 2 * MARGIN + (top + 1) * HEIGHT + top * BETWEEN)
    page = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    draw = ImageDraw.Draw(page)

    def at(node: Node, floor: int) -> tuple[float, float]:
        return left + x[node], MARGIN + (top - floor) * (HEIGHT + BETWEEN) + HEIGHT / 2

    where = {node: at(node, floor) for floor, layer in enumerate(plan.layers) for node in layer}
    for floor in range(top + 1):
        y = MARGIN + (top - floor) * (HEIGHT + BETWEEN)
        box = (MARGIN / 2, y - 12, size[0] - MARGIN / 2, y + HEIGHT + 12)
        draw.rounded_rectangle([v * SCALE for v in box], 14 * SCALE, (247, 248, 251))
        draw.text((MARGIN * SCALE, (y + HEIGHT / 2) * SCALE), str(floor), FAINT, font(17 * SCALE), anchor="lm")
    for room in arrows:
        down = sorted((way for way in plan.ways if way[0] == room), key=lambda way: x[way[1]])
        for number, way in enumerate(down):
            begin = where[room][0] + (number - (len(down) - 1) / 2) * FAN
            _arrow(draw, [(begin, where[room][1]), *(where[node] for node in way[1:])])
    for room in arrows:
        _room(draw, room, says[room], sorted(allowed_[room]), where[room], FLOORS[floors(arrows)[room] // 2])
    return page.resize(size, Image.Resampling.LANCZOS)


def _room(
    draw: ImageDraw.ImageDraw,
    name: str,
    says: str,
    imports: list[str],
    middle: tuple[float, float],
    tint: tuple[int, ...],
) -> None:
    x, y = middle[0] - WIDTH / 2, middle[1] - HEIGHT / 2
    box = [v * SCALE for v in (x, y, x + WIDTH, y + HEIGHT)]
    draw.rounded_rectangle(box, 9 * SCALE, tint, LINE, round(1.2 * SCALE))
    draw.text(
        ((x + WIDTH / 2) * SCALE, (y + 7) * SCALE),
        name,
        INK,
        font(18 * SCALE),
        anchor="ma",
        stroke_width=1,
        stroke_fill=INK,
    )
    lines = wrapped(says, (WIDTH - 20) * SCALE, 11 * SCALE)[:2]
    for number, line in enumerate(lines):
        draw.text(((x + WIDTH / 2) * SCALE, (y + 31 + 14 * number) * SCALE), line, INK, font(11 * SCALE), anchor="ma")
    listed = wrapped(
        "imports " + (", ".join(imports) if imports else "nothing of ours"), (WIDTH - 16) * SCALE, 10 * SCALE
    )
    for number, line in enumerate(reversed(listed)):
        where = ((x + WIDTH / 2) * SCALE, (y + HEIGHT - 6 - 12 * number) * SCALE)
        draw.text(where, line, FAINT, font(10 * SCALE), anchor="md")


def _arrow(draw: ImageDraw.ImageDraw, way: list[tuple[float, float]]) -> None:
    """Down from the bottom of the first room to the top of the last, in curves between the floors."""
    ports = [(way[0][0], way[0][1] + HEIGHT / 2)]
    for x, y in way[1:-1]:
        ports += [(x, y - HEIGHT / 2), (x, y + HEIGHT / 2)]
    ports.append((way[-1][0], way[-1][1] - HEIGHT / 2))
    points: list[tuple[float, float]] = []
    for (ax, ay), (bx, by) in zip(ports[::2], ports[1::2], strict=True):
        for i in range(49):
            s = i / 48
            ease = s * s * (3 - 2 * s)
            points.append((ax + (bx - ax) * ease, ay + (by - ay) * s))
    draw.line([(x * SCALE, y * SCALE) for x, y in points], LINE, round(1.8 * SCALE), joint="curve")
    x, y = points[-1]
    head = [(x, y), (x - 5.5, y - 11), (x + 5.5, y - 11)]
    draw.polygon([(a * SCALE, b * SCALE) for a, b in head], LINE)

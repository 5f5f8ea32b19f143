"""A square of ground cut into convex cells by straight lines: what lies between a town's streets.

Everything is computed in Python's floats with the four basic operations and square roots, which
IEEE 754 fixes to the last bit: no library's order of points decides where a street runs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from crossview.synthetic.plan import cross, dot, edges, unit

Cell = tuple[int, ...]
"""Nodes of a convex ring, counter-clockwise; a node on a straight side may be missing."""

Edge = tuple[int, int]
"""Two nodes, the lower one first."""

BORDER = -1
"""The number of the line around everything."""

_T = TypeVar("_T")
_L = TypeVar("_L", bound=Hashable)


class CellComplex:
    """Convex cells that share nodes and edges, made by cutting.

    Args:
        outline: A convex ring, counter-clockwise.

    Attributes:
        nodes: Where they lie.
        line_of: The number of the line that each edge is a piece of.
    """

    def __init__(self, outline: Sequence[complex]) -> None:
        self.nodes = list(outline)
        self.whole: Cell = tuple(range(len(outline)))
        self.line_of = {_edge(a, b): BORDER for a, b in _steps(self.whole)}
        self._middles: dict[Edge, int] = {}

    def ring(self, cell: Cell) -> list[int]:
        """All nodes of a cell, also those that its neighbours added."""
        nodes: list[int] = []
        for a, b in _steps(cell):
            nodes += self._refined(a, b)
        return nodes

    def shape(self, cell: Cell) -> list[complex]:
        """A cell's ring of positions."""
        return [self.nodes[node] for node in cell]

    def cut(
        self,
        cell: Cell,
        origin: complex,
        along: complex,
        line: int,
        *,
        snap_m: float,
        min_width_m: float,
    ) -> list[Cell]:
        """The cells left and right of a line through origin; the cell alone where it is not cut.

        Args:
            cell: What to cut.
            origin: A point of the line.
            along: Its direction.
            line: Its number, which the new edge gets.
            snap_m: An end this near to a node of the cell moves into it, so that streets meet at
                one crossing instead of two.
            min_width_m: Nothing is cut if a part would be narrower.
        """
        ring = self.ring(cell)
        side = [cross(along, self.nodes[node] - origin) for node in ring]
        turns = [k for k in range(len(ring)) if (side[k - 1] < 0) != (side[k] < 0)]
        if len(turns) != 2:
            return [cell]
        (first, start), (second, stop) = ends = [self._end(ring, side, k, snap_m) for k in turns]
        if start == stop:
            return [cell]
        parts = (
            [start, *(self.nodes[n] for n in _between(ring, first, second)), stop],
            [stop, *(self.nodes[n] for n in _between(ring, second, first)), start],
        )
        if any(len(part) < 3 or width_m(part) < min_width_m for part in parts):
            return [cell]
        a, b = (self._node_at(ring, k, place) for k, place in ends)
        self.line_of[_edge(a, b)] = line
        ring = self.ring(tuple(ring))
        i, j = ring.index(a), ring.index(b)
        low, high = min(i, j), max(i, j)
        return [tuple(ring[low : high + 1]), tuple(ring[high:] + ring[: low + 1])]

    def split(self, a: int, b: int, share: float) -> int:
        """Put a node on an edge, this share of the way from a to b."""
        key = _edge(a, b)
        node = len(self.nodes)
        self.nodes.append(self.nodes[a] + share * (self.nodes[b] - self.nodes[a]))
        self._middles[key] = node
        line = self.line_of.pop(key)
        self.line_of[_edge(a, node)] = self.line_of[_edge(node, b)] = line
        return node

    def _refined(self, a: int, b: int) -> list[int]:
        """The nodes from a to b, without b."""
        middle = self._middles.get(_edge(a, b))
        if middle is None:
            return [a]
        return self._refined(a, middle) + self._refined(middle, b)

    def _end(
        self, ring: Sequence[int], side: Sequence[float], k: int, snap_m: float
    ) -> tuple[int, complex]:
        """Where the line crosses the edge that ends at position k of the ring, and k.

        A node that is near enough takes the place; k is then its position, plus the ring's length.
        """
        before, after = self.nodes[ring[k - 1]], self.nodes[ring[k]]
        place = before + side[k - 1] / (side[k - 1] - side[k]) * (after - before)
        count = len(ring)
        near = min((k - 1) % count, k, key=lambda n: abs(self.nodes[ring[n]] - place))
        if abs(self.nodes[ring[near]] - place) <= snap_m:
            return near + count, self.nodes[ring[near]]
        return k, place

    def _node_at(self, ring: Sequence[int], k: int, place: complex) -> int:
        if k >= len(ring):
            return ring[k - len(ring)]
        a, b = ring[k - 1], ring[k]
        length = self.nodes[b] - self.nodes[a]
        return self.split(a, b, dot(place - self.nodes[a], length) / dot(length, length))


class Buckets(Generic[_T]):
    """Things found by where they are: a grid of square buckets."""

    def __init__(self, side_m: float = 24.0) -> None:
        self._side_m = side_m
        self._things: dict[tuple[int, int], list[_T]] = {}

    def add(self, thing: _T, positions: Sequence[complex], reach_m: float = 0.0) -> None:
        """Put a thing into all buckets of its bounding box, widened by reach_m."""
        x_m, y_m = [p.real for p in positions], [p.imag for p in positions]
        for i in self._span(min(x_m) - reach_m, max(x_m) + reach_m):
            for j in self._span(min(y_m) - reach_m, max(y_m) + reach_m):
                self._things.setdefault((i, j), []).append(thing)

    def at(self, position: complex) -> Sequence[_T]:
        """All whose widened box may hold a position."""
        key = math.floor(position.real / self._side_m), math.floor(position.imag / self._side_m)
        return self._things.get(key, ())

    def _span(self, low: float, high: float) -> range:
        return range(math.floor(low / self._side_m), math.floor(high / self._side_m) + 1)


def clipped(
    ring: Sequence[complex], labels: Sequence[_L], origin: complex, along: complex, label: _L
) -> tuple[list[complex], list[_L]]:
    """What of a convex ring lies left of a line, and the labels of its edges.

    Args:
        ring: Counter-clockwise.
        labels: Of the edge that starts at each corner.
        origin: A point of the line.
        along: Its direction.
        label: Of the new edge.
    """
    corners: list[complex] = []
    kept: list[_L] = []
    side = [cross(along, corner - origin) for corner in ring]
    for k, corner in enumerate(ring):
        after = (k + 1) % len(ring)
        if side[k] >= 0:
            corners.append(corner)
            kept.append(labels[k])
        if (side[k] >= 0) != (side[after] >= 0):
            share = side[k] / (side[k] - side[after])
            corners.append(corner + share * (ring[after] - corner))
            kept.append(label if side[k] >= 0 else labels[k])
    return _without_specks(corners, kept)


def shrunk(ring: Sequence[complex], distance_m: float) -> list[complex]:
    """The part of a convex ring that is this far from all its edges; empty where there is none."""
    left, labels = list(ring), [0] * len(ring)
    for start, end in edges(ring):
        if len(left) < 3:
            return []
        step = distance_m * 1j * unit(end - start)
        left, labels = clipped(left, labels, start + step, end - start, 0)
    return left if len(left) >= 3 else []


def area_m2(ring: Sequence[complex]) -> float:
    """Of a ring, counter-clockwise."""
    return 0.5 * math.fsum(cross(start - ring[0], end - ring[0]) for start, end in edges(ring))


def middle(ring: Sequence[complex]) -> complex:
    """The mean of a ring's corners."""
    return complex(
        math.fsum(corner.real for corner in ring) / len(ring),
        math.fsum(corner.imag for corner in ring) / len(ring),
    )


def width_m(ring: Sequence[complex]) -> float:
    """The least distance between two parallel lines that hold a convex ring between them."""
    return min(
        (
            max(cross(unit(end - start), corner - start) for corner in ring)
            for start, end in edges(ring)
            if abs(end - start) > 1e-6
        ),
        default=0.0,
    )


def longest_direction(ring: Sequence[complex]) -> tuple[complex, float, float]:
    """Unit direction of a convex ring's long side, and the sides of the narrowest box around it."""
    best = (math.inf, 1 + 0j, 0.0, 0.0)
    for start, end in edges(ring):
        if abs(end - start) < 1.0:
            continue
        along = unit(end - start)
        across_m = max(cross(along, corner - start) for corner in ring)
        reach = [dot(along, corner - start) for corner in ring]
        length_m = max(reach) - min(reach)
        if across_m * length_m < best[0]:
            long_first = length_m >= across_m
            best = (
                across_m * length_m,
                along if long_first else 1j * along,
                max(length_m, across_m),
                min(length_m, across_m),
            )
    return best[1:]


def nearest_on_ring(position: complex, ring: Sequence[complex]) -> complex:
    """The point of a ring's edges that is nearest to a position."""
    best, best_m = ring[0], math.inf
    for start, end in edges(ring):
        along = end - start
        square = dot(along, along)
        share = min(max(dot(position - start, along) / square, 0.0), 1.0) if square else 0.0
        place = start + share * along
        if abs(place - position) < best_m:
            best, best_m = place, abs(place - position)
    return best


def _without_specks(
    corners: Sequence[complex], labels: Sequence[_L]
) -> tuple[list[complex], list[_L]]:
    """A ring without edges shorter than a millimetre."""
    count = len(corners)
    keep = [k for k in range(count) if abs(corners[(k + 1) % count] - corners[k]) > 1e-3]
    return [corners[k] for k in keep], [labels[k] for k in keep]


def _between(ring: Sequence[int], first: int, second: int) -> list[int]:
    """Nodes strictly between two ends of a cut, as CellComplex._end numbers them."""
    count = len(ring)
    start = first - count + 1 if first >= count else first
    stop = second - count if second >= count else second
    return [ring[(start + n) % count] for n in range((stop - start) % count)]


def _steps(cell: Sequence[int]) -> Iterator[tuple[int, int]]:
    for k, node in enumerate(cell):
        yield node, cell[(k + 1) % len(cell)]


def _edge(a: int, b: int) -> Edge:
    return (a, b) if a < b else (b, a)

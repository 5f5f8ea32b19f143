"""Rays, triangles and ellipsoids, compiled: an index of cells, casting along azimuths, draping.

Everything is cut by a vertical half-plane (casting) or by a line of constant northing (draping):
a triangle leaves a segment, an upright ellipsoid an ellipse. Where an edge is cut is worked out
from its end on one side to its end on the other, so that the triangles on both sides of the edge
get the same number and no ray slips between them.

Heights are above the ground, and slopes are metres of climb per metre along the ground. Hits are
numbers of triangles, then of ellipsoids (counted on from the last triangle), or GROUND or SKY.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

SKY = -2
GROUND = -1
NO_RAY = -3

_NEAR_M = 1e-12
"""What lies beside or behind the eye is cut off so far ahead of it."""

_SLACK_M = 1e-9
"""By which a cell reaches over its border, so that rounding cannot lose what touches it."""

_BLOCK = 16
"""Columns that are cast one after the other before they are written down."""

_MAILBOX = 256
"""Triangles of the last cells that are remembered, so as not to be cut again."""


# ------------------------------------------------------------------------------- an index


@njit(cache=True, nogil=True, error_model="numpy")
def cells_of_triangle(
    triangle: np.ndarray, grid: np.ndarray, row: int, first: int, last: int, touched: np.ndarray
) -> int:
    """How many of a row's cells from first to last a triangle (3, 3) reaches into from above."""
    count = 0
    half = grid[2] / 2 + _SLACK_M
    middle_y = grid[1] + (row + 0.5) * grid[2]
    for col in range(first, last + 1):
        middle_x = grid[0] + (col + 0.5) * grid[2]
        is_apart = False
        for i in range(3):
            k = (i + 1) % 3
            normal_x, normal_y = triangle[k, 1] - triangle[i, 1], triangle[i, 0] - triangle[k, 0]
            low, high = np.inf, -np.inf
            for corner in range(3):
                along = (triangle[corner, 0] - middle_x) * normal_x
                along += (triangle[corner, 1] - middle_y) * normal_y
                low, high = min(low, along), max(high, along)
            reach = half * (abs(normal_x) + abs(normal_y))
            if low > reach or high < -reach:
                is_apart = True
                break
        if not is_apart:
            touched[count] = col
            count += 1
    return count


@njit(cache=True, nogil=True)
def cell_range(low: float, high: float, start: float, cell: float, end: int) -> tuple[int, int]:
    """First and last cell, along one axis, that an interval touches."""
    first = int(np.floor((low - start - _SLACK_M) / cell))
    last = int(np.floor((high - start + _SLACK_M) / cell))
    return max(first, 0), min(last, end - 1)


@njit(cache=True, nogil=True)
def binned(
    triangles: np.ndarray, crowns: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What reaches into every cell of a grid, as seen from above.

    Args:
        triangles: (n, 3, 3).
        crowns: (k, 5).
        grid: West, south, cell, columns and rows (row 0 is south), height of the highest thing,
            (6,) float64.

    Returns:
        starts: Where the things of each cell start in items, (cells + 1,) int64.
        items: Numbers of triangles, and of crowns plus n, int32.
        tops: Height of the highest thing in each cell, -inf in empty ones.
    """
    num_cols, num_rows = int(grid[3]), int(grid[4])
    starts = np.zeros(num_cols * num_rows + 1, np.int64)
    tops = np.full(num_cols * num_rows, -np.inf)
    touched = np.empty(num_cols, np.int64)
    items = np.empty(0, np.int32)
    for is_filling in (False, True):
        if is_filling:
            starts[1:] = np.cumsum(starts[1:])
            items = np.empty(starts[-1], np.int32)
            free = starts[:-1].copy()
        for i in range(len(triangles) + len(crowns)):
            if i < len(triangles):
                corners = triangles[i]
                low_x, high_x = corners[:, 0].min(), corners[:, 0].max()
                low_y, high_y = corners[:, 1].min(), corners[:, 1].max()
                top = corners[:, 2].max()
            else:
                crown = crowns[i - len(triangles)]
                low_x, high_x = crown[0] - crown[3], crown[0] + crown[3]
                low_y, high_y = crown[1] - crown[3], crown[1] + crown[3]
                top = crown[2] + crown[4]
            first, last = cell_range(low_x, high_x, grid[0], grid[2], num_cols)
            first_row, last_row = cell_range(low_y, high_y, grid[1], grid[2], num_rows)
            for row in range(first_row, last_row + 1):
                if i < len(triangles):
                    count = cells_of_triangle(triangles[i], grid, row, first, last, touched)
                else:
                    count = last - first + 1
                    touched[:count] = np.arange(first, last + 1)
                for col in touched[:count]:
                    cell = row * num_cols + col
                    if is_filling:
                        items[free[cell]] = i
                        free[cell] += 1
                        tops[cell] = max(tops[cell], top)
                    else:
                        starts[cell + 1] += 1
    return starts, items, tops


@njit(cache=True, nogil=True)
def ground_owners(
    triangles: np.ndarray, starts: np.ndarray, items: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """The triangle that holds all of a cell, -1 where none does, (cells,) int32."""
    num_cols = int(grid[3])
    owners = np.full(len(starts) - 1, -1, np.int32)
    for cell in range(len(owners)):
        west = grid[0] + (cell % num_cols) * grid[2]
        south = grid[1] + (cell // num_cols) * grid[2]
        for q in range(starts[cell], starts[cell + 1]):
            inside = np.inf
            for x in (west, west + grid[2]):
                for y in (south, south + grid[2]):
                    inside = min(inside, depth_inside(triangles, items[q], x, y))
            if inside >= 0:
                owners[cell] = items[q]
                break
    return owners


@njit(cache=True, nogil=True)
def depth_inside(triangles: np.ndarray, which: int, x: float, y: float) -> float:
    """How far within a triangle seen counter-clockwise a place is; negative outside."""
    least = np.inf
    for i in range(3):
        k = (i + 1) % 3
        from_x, from_y = triangles[which, i, 0], triangles[which, i, 1]
        east, north = triangles[which, k, 0] - from_x, triangles[which, k, 1] - from_y
        across = east * (y - from_y) - north * (x - from_x)
        least = min(least, across / np.sqrt(east * east + north * north))
    return least


@njit(cache=True, nogil=True, inline="always")
def holds(triangles: np.ndarray, which: int, x: float, y: float) -> bool:
    """Whether a triangle seen counter-clockwise holds a place, its border included."""
    a_x, a_y = triangles[which, 0, 0] - x, triangles[which, 0, 1] - y
    b_x, b_y = triangles[which, 1, 0] - x, triangles[which, 1, 1] - y
    c_x, c_y = triangles[which, 2, 0] - x, triangles[which, 2, 1] - y
    return a_x * b_y - a_y * b_x >= 0 and b_x * c_y - b_y * c_x >= 0 and c_x * a_y - c_y * a_x >= 0


@njit(cache=True, nogil=True, inline="always")
def ground_at(
    x: float,
    y: float,
    triangles: np.ndarray,
    starts: np.ndarray,
    items: np.ndarray,
    grid: np.ndarray,
    owners: np.ndarray,
) -> int:
    """The ground's triangle at a place, -1 where there is none."""
    col, row = np.floor((x - grid[0]) / grid[2]), np.floor((y - grid[1]) / grid[2])
    if not (0 <= col < grid[3] and 0 <= row < grid[4]):
        return -1
    cell = int(row * grid[3] + col)
    if owners[cell] >= 0:
        return owners[cell]
    start, end = starts[cell], starts[cell + 1]
    for q in range(start, end):
        if holds(triangles, items[q], x, y):
            return items[q]
    nearest, most = -1, -1e-6  # by rounding, a place may lie between two triangles
    for q in range(start, end):
        inside = depth_inside(triangles, items[q], x, y)
        if inside > most:
            nearest, most = items[q], inside
    return nearest


# ------------------------------------------------------------------------------- casting


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _first_row(slopes: np.ndarray, top: int, end: int, slope: float) -> int:
    """The first of rows top to end whose slope is not above one; slopes fall with the row."""
    low, high = top, end
    while low < high:
        middle = (low + high) >> 1
        if slopes[middle] > slope:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _cut(
    d_a: float, z_a: float, s_a: float, d_b: float, z_b: float, s_b: float
) -> tuple[float, float]:
    """Where an edge crosses the plane s = 0, whose ends lie on either side of it: (d, z)."""
    if s_a < 0:
        share = s_a / (s_a - s_b)
        return d_a + share * (d_b - d_a), z_a + share * (z_b - z_a)
    share = s_b / (s_b - s_a)
    return d_b + share * (d_a - d_b), z_b + share * (z_a - z_b)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _section(
    d_a: float,
    z_a: float,
    s_a: float,
    d_b: float,
    z_b: float,
    s_b: float,
    d_c: float,
    z_c: float,
    s_c: float,
) -> tuple[bool, float, float, float, float]:
    """Whether the plane s = 0 cuts a triangle, and the ends of the segment: d, z, d, z."""
    is_a, is_b, is_c = s_a < 0, s_b < 0, s_c < 0
    if is_a == is_b == is_c:
        return False, 0.0, 0.0, 0.0, 0.0
    if is_b == is_c:
        d_1, z_1 = _cut(d_a, z_a, s_a, d_b, z_b, s_b)
        d_2, z_2 = _cut(d_a, z_a, s_a, d_c, z_c, s_c)
    elif is_a == is_c:
        d_1, z_1 = _cut(d_b, z_b, s_b, d_a, z_a, s_a)
        d_2, z_2 = _cut(d_b, z_b, s_b, d_c, z_c, s_c)
    else:
        d_1, z_1 = _cut(d_c, z_c, s_c, d_a, z_a, s_a)
        d_2, z_2 = _cut(d_c, z_c, s_c, d_b, z_b, s_b)
    return True, d_1, z_1, d_2, z_2


@njit(cache=True, nogil=True, error_model="numpy")
def cast(fan: Any, things: Any, number: int, picture: Any) -> None:
    """Find the first thing on every ray, column by column.

    Args:
        fan: A tracing.Fan.
        things: A tracing.Things.
        number: Of the mesh that the things are of.
        picture: A tracing.Picture; along, hits and meshes are written. They hold what has been
            found so far, if this is not mesh 0; else there is the ground, and the sky.
    """
    eyes, sines, cosines, slopes = fan.eyes, fan.sines, fan.cosines, fan.slopes
    along, hits, meshes = picture.along, picture.hits, picture.meshes
    num_rows, num_columns = hits.shape
    has_things = len(things.items) > 0
    # some columns together, so that what lies side by side is read and written at once
    reach = np.empty((_BLOCK, num_rows))
    found = np.empty((_BLOCK, num_rows), np.int32)
    mailbox = np.empty(_MAILBOX, np.int32)
    for first in range(0, num_columns, _BLOCK):
        count = min(_BLOCK, num_columns - first)
        if number > 0:
            for row in range(num_rows):
                for k in range(count):
                    reach[k, row], found[k, row] = along[row, first + k], NO_RAY
        for k in range(count):
            column = first + k
            eye, is_ray = eyes[column if len(eyes) > 1 else 0], not np.isnan(slopes[column, 0])
            if number == 0:
                for row in range(num_rows):
                    slope = slopes[column, row]
                    reach[k, row] = -eye[2] / slope if slope < 0 else np.inf if is_ray else np.nan
                    found[k, row] = GROUND if slope < 0 else SKY if is_ray else NO_RAY
            if is_ray and has_things:
                azimuth = sines[column], cosines[column]
                _cast_column(eye, azimuth, slopes[column], things, reach[k], found[k], mailbox)
        for row in range(num_rows):
            for k in range(count):
                if number == 0 or found[k, row] != NO_RAY:
                    along[row, first + k], hits[row, first + k] = reach[k, row], found[k, row]
                    meshes[row, first + k] = number


@njit(cache=True, nogil=True, error_model="numpy")
def _cast_column(
    eye: np.ndarray,
    azimuth: tuple[float, float],
    slopes: np.ndarray,
    things: Any,
    reach: np.ndarray,
    found: np.ndarray,
    mailbox: np.ndarray,
) -> None:
    """Go from cell to cell until nothing in the farther ones could be seen."""
    # taken out of the tuple once: each time costs a count of references
    grid, starts, items, tops = things.grid, things.starts, things.items, things.tops
    triangles, crowns = things.triangles, things.crowns
    num_triangles = len(triangles)
    cell_m, num_cols, num_rows = grid[2], int(grid[3]), int(grid[4])
    east, north = azimuth
    x, y = eye[0] - grid[0], eye[1] - grid[1]

    # where the half-plane enters and leaves the grid
    now, leave = 0.0, np.inf
    for place, step, size in ((x, east, num_cols * cell_m), (y, north, num_rows * cell_m)):
        if step == 0:
            leave = leave if 0 <= place < size else -1.0
        else:
            one, other = -place / step, (size - place) / step
            now, leave = max(now, min(one, other)), min(leave, max(one, other))
    if now >= leave:
        return
    col = min(max(int(np.floor((x + now * east) / cell_m)), 0), num_cols - 1)
    row = min(max(int(np.floor((y + now * north) / cell_m)), 0), num_rows - 1)
    step_col, step_row = 1 if east > 0 else -1, 1 if north > 0 else -1
    next_col = ((col + (east > 0)) * cell_m - x) / east if east != 0 else np.inf
    next_row = ((row + (north > 0)) * cell_m - y) / north if north != 0 else np.inf

    top, end = 0, len(slopes)  # rows that may still find something nearer
    climb = grid[5] - eye[2]
    mailbox[:] = -1
    while True:
        after = min(next_col, next_row)
        while end > top and reach[end - 1] <= now:
            end -= 1
        while top < end and slopes[top] > 0 and slopes[top] * now > climb:
            top += 1
        if top >= end:
            return
        cell = row * num_cols + col
        above = tops[cell] - eye[2]
        # the steepest slope that meets anything in this cell
        steepest = above / now if above > 0 else above / after
        if now <= 0 or steepest >= slopes[end - 1]:
            for q in range(starts[cell], starts[cell + 1]):
                item = items[q]
                if mailbox[item % _MAILBOX] == item:
                    continue
                mailbox[item % _MAILBOX] = item
                if item < num_triangles:
                    _cast_at_triangle(
                        eye, azimuth, slopes, triangles, top, end, item, reach, found
                    )  # fmt: skip
                else:
                    _cast_at_crown(
                        eye, azimuth, slopes, crowns, top, end, item, item - num_triangles, reach,
                        found,
                    )  # fmt: skip
        if after >= leave:
            return
        now = after
        if next_col < next_row:
            col += step_col
            next_col += cell_m / abs(east)
            if not 0 <= col < num_cols:
                return
        else:
            row += step_row
            next_row += cell_m / abs(north)
            if not 0 <= row < num_rows:
                return


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _cast_at_triangle(
    eye: np.ndarray,
    azimuth: tuple[float, float],
    slopes: np.ndarray,
    triangles: np.ndarray,
    top: int,
    end: int,
    item: int,
    reach: np.ndarray,
    found: np.ndarray,
) -> None:
    """Rows from top to end that meet a triangle nearer than what they have found."""
    east, north = azimuth
    a_x, a_y = triangles[item, 0, 0] - eye[0], triangles[item, 0, 1] - eye[1]
    b_x, b_y = triangles[item, 1, 0] - eye[0], triangles[item, 1, 1] - eye[1]
    c_x, c_y = triangles[item, 2, 0] - eye[0], triangles[item, 2, 1] - eye[1]
    is_cut, d_1, z_1, d_2, z_2 = _section(
        a_x * east + a_y * north, triangles[item, 0, 2] - eye[2], a_x * north - a_y * east,
        b_x * east + b_y * north, triangles[item, 1, 2] - eye[2], b_x * north - b_y * east,
        c_x * east + c_y * north, triangles[item, 2, 2] - eye[2], c_x * north - c_y * east,
    )  # fmt: skip
    if not is_cut or (d_1 < _NEAR_M and d_2 < _NEAR_M):
        return
    if d_1 < _NEAR_M:
        z_1 += (z_2 - z_1) * (_NEAR_M - d_1) / (d_2 - d_1)
        d_1 = _NEAR_M
    elif d_2 < _NEAR_M:
        z_2 += (z_1 - z_2) * (_NEAR_M - d_2) / (d_1 - d_2)
        d_2 = _NEAR_M
    lowest, steepest = min(z_1 / d_1, z_2 / d_2), max(z_1 / d_1, z_2 / d_2)
    if lowest > slopes[top] or steepest < slopes[end - 1]:
        return
    near, far = min(d_1, d_2), max(d_1, d_2)
    rise, run, area = z_2 - z_1, d_2 - d_1, d_1 * z_2 - d_2 * z_1
    for row in range(_first_row(slopes, top, end, steepest), end):
        if slopes[row] < lowest:
            break
        fall = rise - slopes[row] * run
        # seen edge-on: the nearer end
        d = min(max(area / fall, near), far) if fall != 0 else near
        if d < reach[row]:
            reach[row], found[row] = d, item


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _cast_at_crown(
    eye: np.ndarray,
    azimuth: tuple[float, float],
    slopes: np.ndarray,
    crowns: np.ndarray,
    top: int,
    end: int,
    item: int,
    which: int,
    reach: np.ndarray,
    found: np.ndarray,
) -> None:
    """Rows from top to end that meet an ellipsoid nearer than what they have found."""
    east, north = azimuth
    to_x, to_y, up = crowns[which, 0] - eye[0], crowns[which, 1] - eye[1], crowns[which, 2] - eye[2]
    aside = (to_x * north - to_y * east) / crowns[which, 3]
    share = 1.0 - aside * aside
    if share <= 0:
        return
    ahead = to_x * east + to_y * north
    width, half = crowns[which, 3] * np.sqrt(share), crowns[which, 4] * np.sqrt(share)
    near, far = ahead - width, ahead + width
    if far <= 0:
        return
    across, upward = 1 / (width * width), 1 / (half * half)
    c = ahead * ahead * across + up * up * upward - 1
    first, last = top, end
    if near > 0:
        # the rows that meet the rectangle around the ellipse
        steepest = (up + half) / (near if up + half > 0 else far)
        lowest = (up - half) / (far if up - half > 0 else near)
        first = _first_row(slopes, top, end, steepest)
        last = _first_row(slopes, first, end, lowest)
    for row in range(first, last):
        a = across + slopes[row] * slopes[row] * upward
        b = ahead * across + slopes[row] * up * upward
        square = b * b - a * c
        if c <= 0:
            d = 0.0  # within the leaves
        elif square < 0 or b <= 0:
            continue
        else:
            d = (b - np.sqrt(square)) / a
        if d < reach[row]:
            reach[row], found[row] = d, item


# ------------------------------------------------------------------------------- draping


@njit(cache=True, nogil=True, error_model="numpy")
def drape(lean: np.ndarray, view: np.ndarray, things: Any, number: int, picture: Any) -> None:
    """Find the uppermost thing on parallel rays through the centres of a map's cells.

    Args:
        lean: How far east and north things appear displaced per metre of height, (2,).
        view: West, north and cell of the map, (3,).
        things: A tracing.Things.
        number: Of the mesh that the things are of.
        picture: A tracing.Picture, row 0 north; along (here heights), hits and meshes hold what
            has been found so far.
    """
    grid, starts, items = things.grid, things.starts, things.items
    triangles, crowns, num_triangles = things.triangles, things.crowns, len(things.triangles)
    heights, hits, meshes = picture.along, picture.hits, picture.meshes
    if len(items) == 0:
        return
    num_rows, num_cols = hits.shape
    west, north, cell_m = view[0], view[1], view[2]
    # what stands up to so far off may lean into the map
    lean_x, lean_y, highest = lean[0], lean[1], max(grid[5], 0.0)
    low_x = west - max(lean_x, 0) * highest
    high_x = west + num_cols * cell_m - min(lean_x, 0) * highest
    low_y = north - num_rows * cell_m - max(lean_y, 0) * highest
    high_y = north - min(lean_y, 0) * highest
    first_col, last_col = cell_range(low_x, high_x, grid[0], grid[2], int(grid[3]))
    first_row, last_row = cell_range(low_y, high_y, grid[1], grid[2], int(grid[4]))
    is_done = np.zeros(num_triangles + len(things.crowns), np.bool_)
    for row in range(first_row, last_row + 1):
        for col in range(first_col, last_col + 1):
            cell = int(row * grid[3] + col)
            for q in range(starts[cell], starts[cell + 1]):
                item = items[q]
                if is_done[item]:
                    continue
                is_done[item] = True
                if item < num_triangles:
                    _drape_triangle(lean, view, triangles, item, number, heights, hits, meshes)
                else:
                    crown = crowns[item - num_triangles]
                    _drape_crown(lean, view, crown, item, number, heights, hits, meshes)


@njit(cache=True, nogil=True, error_model="numpy")
def _drape_triangle(
    lean: np.ndarray,
    view: np.ndarray,
    triangles: np.ndarray,
    item: int,
    number: int,
    heights: np.ndarray,
    hits: np.ndarray,
    meshes: np.ndarray,
) -> None:
    """Cells whose centres a triangle covers higher than what they show."""
    num_rows, num_cols = hits.shape
    west, north, cell_m = view[0], view[1], view[2]
    z_a, z_b, z_c = triangles[item, 0, 2], triangles[item, 1, 2], triangles[item, 2, 2]
    x_a = (triangles[item, 0, 0] + lean[0] * z_a - west) / cell_m
    x_b = (triangles[item, 1, 0] + lean[0] * z_b - west) / cell_m
    x_c = (triangles[item, 2, 0] + lean[0] * z_c - west) / cell_m
    y_a = (north - triangles[item, 0, 1] - lean[1] * z_a) / cell_m
    y_b = (north - triangles[item, 1, 1] - lean[1] * z_b) / cell_m
    y_c = (north - triangles[item, 2, 1] - lean[1] * z_c) / cell_m
    if max(x_a, x_b, x_c) < 0.5 or min(x_a, x_b, x_c) > num_cols - 0.5:
        return
    first = int(np.ceil(max(min(y_a, y_b, y_c) - 0.5, 0.0)))
    last = int(np.floor(min(max(y_a, y_b, y_c) - 0.5, num_rows - 1.0)))
    for row in range(first, last + 1):
        middle = row + 0.5
        is_cut, x_1, z_1, x_2, z_2 = _section(
            x_a, z_a, y_a - middle, x_b, z_b, y_b - middle, x_c, z_c, y_c - middle
        )
        if not is_cut:
            continue
        if x_1 > x_2:
            x_1, z_1, x_2, z_2 = x_2, z_2, x_1, z_1
        rise = (z_2 - z_1) / (x_2 - x_1) if x_2 > x_1 else 0.0
        begin_col = int(np.ceil(max(x_1 - 0.5, 0.0)))
        end_col = int(np.floor(min(x_2 - 0.5, num_cols - 1.0)))
        for col in range(begin_col, end_col + 1):
            z = z_1 + rise * (col + 0.5 - x_1)
            if z > heights[row, col]:
                heights[row, col], hits[row, col] = z, item
                meshes[row, col] = number


@njit(cache=True, nogil=True, error_model="numpy")
def _drape_crown(
    lean: np.ndarray,
    view: np.ndarray,
    crown: np.ndarray,
    item: int,
    number: int,
    heights: np.ndarray,
    hits: np.ndarray,
    meshes: np.ndarray,
) -> None:
    """Cells at whose centres an ellipsoid is higher than what they show."""
    num_rows, num_cols = hits.shape
    cell_m, radius, half = view[2], crown[3], crown[4]
    across, upward = 1 / (radius * radius), 1 / (half * half)
    x = (crown[0] + lean[0] * crown[2] - view[0]) / cell_m
    y = (view[1] - crown[1] - lean[1] * crown[2]) / cell_m
    reach_x = np.sqrt(radius * radius + (lean[0] * half) ** 2) / cell_m
    reach_y = np.sqrt(radius * radius + (lean[1] * half) ** 2) / cell_m
    a = (lean[0] * lean[0] + lean[1] * lean[1]) * across + upward
    first, last = max(int(np.ceil(x - reach_x - 0.5)), 0), int(np.floor(x + reach_x - 0.5))
    first_row, last_row = max(int(np.ceil(y - reach_y - 0.5)), 0), int(np.floor(y + reach_y - 0.5))
    for row in range(first_row, min(last_row, num_rows - 1) + 1):
        off_y = (y - (row + 0.5)) * cell_m
        for col in range(first, min(last, num_cols - 1) + 1):
            # height above the middle is the upper root of a quadratic
            off_x = (col + 0.5 - x) * cell_m
            b = (lean[0] * off_x + lean[1] * off_y) * across
            c = (off_x * off_x + off_y * off_y) * across - 1
            square = b * b - a * c
            if square < 0:
                continue
            z = crown[2] + (b + np.sqrt(square)) / a
            if z > heights[row, col]:
                heights[row, col], hits[row, col] = z, item
                meshes[row, col] = number


# ------------------------------------------------------------------------------- what was hit


@njit(cache=True, nogil=True, error_model="numpy")
def _describe_row(
    row: int,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    things: Any,
    ground: Any,
    table: Any,
    number: int,
    first_instance: int,
    picture: Any,
) -> None:
    """Write what the pixels of a row show that hit one mesh at (x, y, z)."""
    hits, meshes = picture.hits[row], picture.meshes[row]
    surfaces, classes, instances = (
        picture.surfaces[row],
        picture.classes[row],
        picture.instances[row],
    )
    materials, normals, walls = picture.materials[row], picture.normals[row], picture.walls[row]
    crowns, crown_surfaces = things.crowns, things.crown_surfaces
    thing_normals, thing_surfaces = things.normals, things.surfaces
    num_triangles = len(thing_surfaces)
    triangles, starts, items = ground.triangles, ground.starts, ground.items
    grid, owners, ground_surfaces = ground.grid, ground.owners, ground.surfaces
    frames, nothing = table.frames, table.nothing
    kinds, numbers, substances = table.classes, table.instances, table.materials
    owner = -1
    for col in range(len(hits)):
        if meshes[col] != number:
            continue
        hit, surface = hits[col], -1
        if hit >= num_triangles:
            k = hit - num_triangles
            n_x = (x[col] - crowns[k, 0]) / (crowns[k, 3] * crowns[k, 3])
            n_y = (y[col] - crowns[k, 1]) / (crowns[k, 3] * crowns[k, 3])
            n_z = (z[col] - crowns[k, 2]) / (crowns[k, 4] * crowns[k, 4])
            length = np.sqrt(n_x * n_x + n_y * n_y + n_z * n_z)
            length = 1 / length if length > 0 else 0.0
            normals[col, 0], normals[col, 1] = n_x * length, n_y * length
            normals[col, 2] = n_z * length
            surface = crown_surfaces[k]
        elif hit >= 0:
            for i in range(3):
                normals[col, i] = thing_normals[hit, i]
            surface = thing_surfaces[hit]
        else:
            normals[col, 0] = normals[col, 1] = 0.0
            normals[col, 2] = 1.0 if hit == GROUND else 0.0
            if hit == GROUND:
                # mostly the triangle of the pixel before
                if owner < 0 or not holds(triangles, owner, x[col], y[col]):
                    owner = ground_at(x[col], y[col], triangles, starts, items, grid, owners)
                if owner >= 0:
                    surface = ground_surfaces[owner]
        surfaces[col] = surface
        walls[col, 0] = walls[col, 1] = walls[col, 2] = walls[col, 3] = 0.0
        if surface < 0:
            classes[col], materials[col] = nothing[hit + 3], nothing[3]
            instances[col] = 0
            continue
        classes[col], materials[col] = kinds[surface], substances[surface]
        instance = numbers[surface]
        instances[col] = instance + first_instance if instance > 0 else 0
        if hit >= 0 and frames[surface, 4] > 0:
            start_x, start_y = frames[surface, 0], frames[surface, 1]
            along = (x[col] - start_x) * frames[surface, 2]
            walls[col, 0] = along + (y[col] - start_y) * frames[surface, 3]
            walls[col, 1], walls[col, 2] = frames[surface, 4], frames[surface, 5]
            walls[col, 3] = np.floor(start_x * 8) * 31 % 4096 + np.floor(start_y * 8) * 17 % 4096


@njit(cache=True, nogil=True, error_model="numpy")
def describe_fan(
    fan: Any, things: Any, ground: Any, table: Any, number: int, first_instance: int, picture: Any
) -> None:
    """Write class, instance, material, normal and place on the wall of what one mesh shows.

    Args:
        fan: A tracing.Fan.
        things: A tracing.Things.
        ground: A tracing.Ground.
        table: A tracing.Table.
        number: Of the mesh; of mesh 0 are also ground, sky and pixels without a ray.
        first_instance: Added to the mesh's instances.
        picture: A tracing.Picture.
    """
    eyes, sines, cosines, slopes = fan.eyes, fan.sines, fan.cosines, fan.slopes_by_row
    along = picture.along
    num_rows, num_columns = along.shape
    step = 1 if len(eyes) > 1 else 0
    x, y, z = np.empty(num_columns), np.empty(num_columns), np.empty(num_columns)
    for row in range(num_rows):
        for column in range(num_columns):
            x[column] = eyes[step * column, 0] + sines[column] * along[row, column]
            y[column] = eyes[step * column, 1] + cosines[column] * along[row, column]
            z[column] = eyes[step * column, 2] + slopes[row, column] * along[row, column]
        _describe_row(row, x, y, z, things, ground, table, number, first_instance, picture)


@njit(cache=True, nogil=True, error_model="numpy")
def describe_draped(
    lean: np.ndarray,
    view: np.ndarray,
    things: Any,
    ground: Any,
    table: Any,
    number: int,
    first_instance: int,
    picture: Any,
) -> None:
    """As describe_fan, of what drape found."""
    heights = picture.along
    num_rows, num_cols = heights.shape
    x, y = np.empty(num_cols), np.empty(num_cols)
    for row in range(num_rows):
        for col in range(num_cols):
            x[col] = view[0] + (col + 0.5) * view[2] - lean[0] * heights[row, col]
            y[col] = view[1] - (row + 0.5) * view[2] - lean[1] * heights[row, col]
        z = heights[row]
        _describe_row(row, x, y, z, things, ground, table, number, first_instance, picture)

"""Colours of what rays hit, compiled: surfaces with patterns in sun and shade, sky, fog, exposure.

Patterns are filtered over what a pixel covers, so that they fade into their mean far away instead
of flickering: pulses (windows, joints) in closed form, noise from a pyramid of halved copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from crossview.synthetic.light import AMBIENT, BOUNCE, CLOUD, FOG, HORIZON, SUN, ZENITH
from crossview.synthetic.substances import (
    CROWN,
    FACADE,
    GROUND,
    JOINTED,
    LAMP,
    LIQUID,
    ROOF,
    UPRIGHT,
)

_FUSED = {"contract", "arcp"}  # a product and a sum at once; infinities stay what they are

LAMPLIGHT, WINDOW, LEAF_LOW, LEAF_HIGH = range(4)
"""Rows of Look.colors."""

NOISE_SIZE = 256
"""Cells along a side of the finest level of noise; every level has half as many."""

_LEAST_COSINE = 0.08
"""A surface seen at a more grazing angle is filtered as if it were this steep."""


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _hashed(a: int, b: int, c: int) -> float:
    """A number in [0, 1) that three whole numbers choose."""
    h = (a * 73856093) ^ (b * 19349663) ^ (c * 83492791)
    h &= 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _noise(x: float, y: float, width: float, noise: np.ndarray) -> float:
    """Noise with a grain of 1, mean over a square of a width; mean 0, deviation 1 where sharp."""
    start, size = 0, NOISE_SIZE
    while width > 1.0 and size > 1:
        width *= 0.5
        x, y = x * 0.5, y * 0.5
        start += size * size
        size >>= 1
    left, low = np.floor(x), np.floor(y)
    share_x, share_y = x - left, y - low
    col, row = int(left) & (size - 1), int(low) & (size - 1)
    next_col, next_row = (col + 1) & (size - 1), (row + 1) & (size - 1)
    one = noise[start + row * size + col] * (1 - share_x)
    one += noise[start + row * size + next_col] * share_x
    other = noise[start + next_row * size + col] * (1 - share_x)
    other += noise[start + next_row * size + next_col] * share_x
    return one * (1 - share_y) + other * share_y


@njit(cache=True, nogil=True, error_model="numpy")
def _pulses(x: float, low: float, high: float, width: float) -> float:
    """Share of [x - width / 2, x + width / 2] in [low, high] + any whole number."""
    width = max(width, 1e-4)
    a, b = x - width / 2, x + width / 2
    whole_a, whole_b = np.floor(a), np.floor(b)
    area = (whole_b - whole_a) * (high - low)
    area += min(max(b - whole_b - low, 0.0), high - low)
    area -= min(max(a - whole_a - low, 0.0), high - low)
    return area / width


@njit(cache=True, nogil=True, error_model="numpy")
def _looked_up(x: float, y: float, west: float, north: float, values: np.ndarray) -> float:
    """The value of a map with cells of 1 m, interpolated between their middles; 0 outside."""
    col, row = x - west - 0.5, north - y - 0.5
    if not (0 <= col < values.shape[1] - 1 and 0 <= row < values.shape[0] - 1):
        return 0.0
    j, i = int(col), int(row)
    share_x, share_y = col - j, row - i
    upper = values[i, j] * (1 - share_x) + values[i, j + 1] * share_x
    lower = values[i + 1, j] * (1 - share_x) + values[i + 1, j + 1] * share_x
    return upper * (1 - share_y) + lower * share_y


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _sunlit(
    x: float, y: float, z: float, west: float, north: float, cell: float, tops: np.ndarray
) -> float:
    """Share of the sun past what is highest on its rays; -1 off the map.

    Args:
        x: Where the ray of sun through a place meets the ground; also y.
        y: See there.
        z: Height of the place.
        west: Of the map.
        north: Of the map.
        cell: Of the map.
        tops: The highest points on the rays that end in the middles of its cells.
    """
    col, row = (x - west) / cell - 0.5, (north - y) / cell - 0.5
    if not (0 <= col < tops.shape[1] - 1 and 0 <= row < tops.shape[0] - 1):
        return -1.0
    j, i = int(col), int(row)
    share_x, share_y = col - j, row - i
    upper = (1 - share_x) * (tops[i, j] <= z) + share_x * (tops[i, j + 1] <= z)
    lower = (1 - share_x) * (tops[i + 1, j] <= z) + share_x * (tops[i + 1, j + 1] <= z)
    return upper * (1 - share_y) + lower * share_y


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _mixed(
    one: tuple[float, float, float], other: tuple[float, float, float], share: float
) -> tuple[float, float, float]:
    """A colour with a share of another."""
    return (
        one[0] + share * (other[0] - one[0]),
        one[1] + share * (other[1] - one[1]),
        one[2] + share * (other[2] - one[2]),
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _grey(level: float) -> tuple[float, float, float]:
    return level, level, level


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _of_row(colors: np.ndarray, row: int) -> tuple[float, float, float]:
    return colors[row, 0], colors[row, 1], colors[row, 2]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _tint(tints: np.ndarray, material: int, which: int, gain: float) -> tuple[float, float, float]:
    return (
        gain * tints[material, which, 0],
        gain * tints[material, which, 1],
        gain * tints[material, which, 2],
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _sky(colors: np.ndarray, rise: float, shine: float) -> tuple[float, float, float]:
    """The sky without clouds."""
    blue = _mixed(_of_row(colors, HORIZON), _of_row(colors, ZENITH), rise)
    return (
        blue[0] + shine * colors[SUN, 0],
        blue[1] + shine * colors[SUN, 1],
        blue[2] + shine * colors[SUN, 2],
    )


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _rise(v_z: float) -> float:
    """How far the colour of the sky has gone from that of the horizon to that of the zenith."""
    low = 1 - max(v_z, 0.0)
    return 1 - low * low * low * low * low


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _shine(toward: float) -> float:
    """Share of the sun's light that is seen beside it, by the cosine of the angle."""
    if toward < 0.5:
        return 0.0
    glow = toward * toward
    glow *= glow
    glow *= glow
    narrow = glow * glow * glow * glow
    return 0.12 * glow + 0.5 * narrow * narrow


@njit(cache=True, nogil=True, error_model="numpy")
def _clouded(
    v_x: float, v_y: float, v_z: float, width: float, cover: float, noise: np.ndarray
) -> float:
    """Share of a cloud in a direction of the sky."""
    if not 0 < cover < 1 or v_z < 0.01:
        return 0.0
    far = 1 / (v_z + 0.12)
    x, y, grain = 6 * v_x * far, 6 * v_y * far, 6 * width * far * far
    # fading by hand: where a level of the pyramid ended, there would be a line in the sky
    bumps = 0.62 * _noise(0.35 * x, 0.35 * y, 0.0, noise)
    bumps += 0.30 * min(max(1.5 - grain, 0.0), 1.0) * _noise(x + 31, y + 7, 0.0, noise)
    bumps += 0.15 * min(max(1.5 - 3 * grain, 0.0), 1.0) * _noise(3 * x, 3 * y, 0.0, noise)
    high = min(1.0, v_z * 4)
    share = min(max((bumps + 2.6 * cover - 1.3) * 1.4 + 0.5, 0.0), 1.0)
    return share * high * high * (3 - 2 * high)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _clear(depth: float) -> float:
    """About exp(-depth), for less time."""
    return 1 / (1 + depth * (1 + depth * (0.5 + depth * (1 / 6 + depth / 24))))


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FUSED)
def _shade_row(
    row: int,
    place: Any,
    picture: Any,
    substances: Any,
    light: Any,
    shadows: Any,
    look: Any,
    linear: np.ndarray,
) -> None:
    """Write the linear colours of a row's pixels.

    Args:
        row: Which.
        place: x, y, z, three parts of the unit vector of sight, distance along the ray and width
            of a pixel across it, (columns,) each.
        picture: A tracing.Picture.
        substances: A substances.Table.
        light: A light.Light.
        shadows: A shading.Shadows.
        look: A shading.Look.
        linear: (rows, columns, 3) float32; written.
    """
    xs, ys, zs, v_xs, v_ys, v_zs, distances, widths = place
    hits, instances = picture.hits[row], picture.instances[row]
    materials, normals, walls = picture.materials[row], picture.normals[row], picture.walls[row]
    kinds, albedos, is_shop = substances.kinds, substances.albedos, substances.is_shop
    fine, coarse, is_paved = substances.fine, substances.coarse, substances.is_paved
    tints, joints, mirrors = substances.tints, substances.joints, substances.mirrors
    num_tints, window_glass = substances.num_tints, substances.window_glass
    is_evergreen = substances.is_evergreen
    noise, seed, pixel = look.noise, look.seed, look.pixel
    lamp, window = _of_row(look.colors, LAMPLIGHT), _of_row(look.colors, WINDOW)
    leaf_low, leaf_high = _of_row(look.colors, LEAF_LOW), _of_row(look.colors, LEAF_HIGH)
    to_sun, colors, cover, night = light.sun_direction, light.colors, light.cover, light.night
    lean_x, lean_y, corners, cells = (
        shadows.lean[0], shadows.lean[1], shadows.corners, shadows.cells,
    )  # fmt: skip
    near, far, lamps, lamp_corner = (
        shadows.tops[0], shadows.tops[1], shadows.lamps, shadows.lamp_corner,
    )  # fmt: skip
    extinction = light.extinction
    air = extinction * look.fog_m
    sun_x, sun_y, sun_z = to_sun[0], to_sun[1], to_sun[2]
    has_sun = colors[SUN, 0] + colors[SUN, 1] + colors[SUN, 2] > 1e-3 and sun_z > 0
    fog = _of_row(colors, FOG)
    for col in range(len(xs)):
        v_x, v_y, v_z = v_xs[col], v_ys[col], v_zs[col]
        if hits[col] < -1:
            if hits[col] == -3:
                linear[row, col] = 0.0
                continue
            rise, shine = _rise(v_z), _shine(v_x * sun_x + v_y * sun_y + v_z * sun_z)
            cloud = _clouded(v_x, v_y, v_z, pixel, cover, noise)
            # fog hides the sky near the horizon
            clear = _clear(air / max(v_z, 0.02))
            blue = _mixed(_sky(colors, rise, shine), _of_row(colors, CLOUD), cloud)
            blue = _mixed(fog, blue, clear)
            linear[row, col, 0], linear[row, col, 1], linear[row, col, 2] = blue
            continue
        x, y, z, width = xs[col], ys[col], zs[col], widths[col]
        n_x, n_y, n_z = normals[col, 0], normals[col, 1], normals[col, 2]
        facing = -(n_x * v_x + n_y * v_y + n_z * v_z)
        if facing < 0:  # the back of a fence or a sign
            n_x, n_y, n_z, facing = -n_x, -n_y, -n_z, -facing
        material, instance = materials[col], instances[col]
        kind = kinds[material]
        steep = width / max(facing, _LEAST_COSINE)
        chance = _hashed(instance, 17, seed) if instance > 0 else 0.5
        mirror, is_glass, glow = mirrors[material], 0.0, 0.0
        albedo = _of_row(albedos, material)
        if num_tints[material] > 0 and instance > 0:
            which = int(_hashed(instance, 5, seed) * num_tints[material])
            albedo = _mixed(albedo, _tint(tints, material, which, 1.0), look.paint)
        shade = 1.0
        if instance > 0:
            shade += look.paint * 0.5 * (chance - 0.5)

        # coordinates on the surface
        if kind in (FACADE, UPRIGHT):
            along, up = walls[col, 0], z
            if walls[col, 1] == 0 and abs(n_z) < 0.7:
                along = y * n_x - x * n_y
            elif walls[col, 1] == 0:
                along, up = x, y
        elif kind == ROOF and n_z < 0.995:
            down = 1 / np.sqrt(n_x * n_x + n_y * n_y)
            along, up = (y * n_x - x * n_y) * down, z * down
        elif kind == CROWN and abs(n_z) < 0.6:
            along, up = (y, z) if abs(n_x) > abs(n_y) else (x, z)
        else:
            along, up = x, y
        offset = 13.7 * (instance & 63)
        grain, blotch = 1 / fine[material, 0], 1 / coarse[material, 0]
        if kind == CROWN:
            # three projections, blended so that no seam shows
            rough = 0.0
            for k in range(3):
                share = n_x * n_x if k == 0 else n_y * n_y if k == 1 else n_z * n_z
                if share > 0.02:
                    one, other = y if k == 0 else x, y if k == 2 else z
                    rough += (
                        share
                        * fine[material, 1]
                        * _noise(one * grain + offset, other * grain, 0.7 * steep * grain, noise)
                    )
                    rough += (
                        share
                        * coarse[material, 1]
                        * _noise(
                            one * blotch + offset, other * blotch + 5.5, 0.7 * steep * blotch, noise
                        )
                    )
            rough /= np.sqrt(n_x * n_x * n_x * n_x + n_y * n_y * n_y * n_y + n_z * n_z * n_z * n_z)
        else:
            rough = fine[material, 1] * _noise(
                along * grain + offset, up * grain, 0.7 * steep * grain, noise
            )
            rough += coarse[material, 1] * _noise(
                along * blotch + offset, up * blotch + 5.5, 0.7 * steep * blotch, noise
            )
        shade *= max(1.0 + look.texture * rough, 0.1)

        if kind == FACADE:
            level = np.sqrt(n_x * n_x + n_y * n_y)
            wide = width / max(facing / max(level, 0.1), _LEAST_COSINE)
            length, top = walls[col, 1], walls[col, 2]
            wall, number = int(walls[col, 3]), instance
            if look.texture > 0 and joints[material] > 0:
                shade *= 1 - 0.16 * _pulses(
                    up / joints[material], 0.0, 0.16, width / joints[material]
                )
            if length > 1.6 and top > 2.2 and z < top:
                storey = 2.7 + 0.9 * _hashed(number, 1, seed)
                num_floors = max(1.0, np.floor(top / storey))
                storey = top / num_floors
                bay = 1.9 + 1.9 * _hashed(number, 2, seed)
                num_bays = max(1.0, np.floor(length / bay))
                bay = length / num_bays
                u, f = along / bay, z / storey
                bay_at, floor_at = np.floor(u), np.floor(f)
                half = (0.40 + 0.25 * _hashed(number, 3, seed)) / 2
                if kind == FACADE and window_glass[material] == 2:
                    half = 0.46
                sill, lintel = 0.28 + 0.06 * _hashed(number, 4, seed), 0.82
                if window_glass[material] == 2:
                    sill, lintel = 0.08, 0.94
                wide_u, wide_f = wide / bay, width / storey
                is_store = look.shops and is_shop[material] and floor_at == 0
                is_door = False
                if is_store:
                    half, sill, lintel = 0.44, 0.12, 0.72
                elif floor_at == 0 and length > 4:
                    is_door = bay_at == np.floor(_hashed(wall, number, 6) * num_bays)
                    is_door = is_door and _hashed(wall, number, 8) < 0.7
                if is_door:
                    half, sill, lintel = min(0.55 / bay, 0.4), 0.0, min(2.15 / storey, 0.9)
                pane = _pulses(u, 0.5 - half, 0.5 + half, wide_u)
                pane *= _pulses(f, sill, lintel, wide_f)
                rim = 0.09
                frame = _pulses(u, 0.5 - half - rim / bay, 0.5 + half + rim / bay, wide_u)
                frame *= _pulses(f, sill - 0.8 * rim / storey, lintel + rim / storey, wide_f)
                pale = 0.9 if _hashed(number, 9, seed) < 0.6 else 0.12
                rim_share = max(frame - pane, 0.0) * (0.0 if length <= 0 else 0.8)
                albedo = _mixed(albedo, _grey(0.85 * pale), rim_share)
                # single windows are told apart while they are wider than a pixel
                sharp = min(max(1.5 - 1.5 * max(wide_u, wide_f), 0.0), 1.0)
                cell = _hashed(int(bay_at) + 97 * int(floor_at), wall, number + seed)
                if is_door:
                    albedo = _mixed(albedo, _tint(tints, material, int(cell * 5.99), 0.4), pane)
                    shade += 0.3 * pane * (1 - shade)
                else:
                    curtain = 0.35 * max(0.0, (cell - 0.6) / 0.4) * sharp
                    if is_store:
                        curtain = 0.25 * cell
                    bars = 0.0
                    if not is_store and window_glass[material] != 2:
                        bars = _pulses(u, 0.5 - 0.03 / bay, 0.5 + 0.03 / bay, wide_u) * pane
                    albedo = _mixed(albedo, _grey(0.035 + curtain), pane)
                    albedo = _mixed(albedo, _grey(0.85 * pale), 0.7 * bars)
                    shade += pane * (1 - shade)
                    is_glass = pane - bars
                    mirror = mirror * (1 - pane) + 0.9 * is_glass
                    lit = 0.75 if is_store else 0.38
                    shining = lit * (1 - sharp) + sharp * (cell * 7.31 % 1.0 < lit)
                    glow = night * is_glass * shining * (0.5 + 0.5 * cell)
                if is_store:
                    band = _pulses(f, 0.76, 0.95, wide_f)
                    which = int(_hashed(wall, number, 11) * 5.99)
                    albedo = _mixed(albedo, _tint(tints, material, which, 0.9), band)
                    glow = max(glow, 0.25 * night * band)
                # a plinth, and a cornice under the roof
                if z < 0.5 or z > top - 0.25:
                    shade *= 0.82
        elif kind == ROOF and joints[material] > 0:
            size = joints[material]
            shade *= 1 - 0.25 * look.texture * (_pulses(up / size, 0.0, 0.3, steep / size) - 0.3)
        elif kind == JOINTED and joints[material] > 0:
            size = joints[material]
            line = _pulses(x / size, 0.0, 0.07, steep / size)
            line = max(line, _pulses(y / size, 0.0, 0.07, steep / size))
            shade *= 1 - 0.28 * look.texture * line
        elif kind == CROWN:
            if not is_evergreen[material]:
                albedo = _mixed(leaf_low, leaf_high, chance)
            shade *= 0.72 + 0.28 * n_z

        # what the season and the weather lay on it
        if n_z > 0.3 and look.snow > 0 and kind != LIQUID:
            white = look.snow * (1.15 if kind != CROWN else 0.5)
            if kind == JOINTED or (kind == GROUND and is_paved[material]):
                white = look.snow * 0.62
            patch = 0.4 * _noise(x * 0.45, y * 0.45, 0.45 * steep, noise)
            patch += 0.35 * _noise(x * 2.1, y * 2.1, 2.1 * steep, noise)
            white = min(max((white - 0.55) * 3.0 + 0.5 * patch + 0.5, 0.0), 1.0)
            white *= min((n_z - 0.3) * 2.5, 1.0) * 0.95
            albedo = _mixed(albedo, _grey(0.86 / max(shade, 0.1)), white)
            mirror *= 1 - white
        elif look.wetness > 0 and kind not in (CROWN, LIQUID):
            soaked = look.wetness * min(max(n_z, 0.0) + 0.25, 1.0)
            shade *= 1 - 0.45 * soaked
            if n_z > 0.9 and is_paved[material]:
                pool = 0.6 * _noise(x * 0.3, y * 0.3, 0.3 * steep, noise)
                pool += 0.4 * _noise(x * 1.9, y * 1.9, 1.9 * steep, noise)
                mirror = max(mirror, look.wetness * min(max(0.4 + 0.3 * pool, 0.0), 0.9))

        # light
        lit = 0.0
        if has_sun:
            lit = n_x * sun_x + n_y * sun_y + n_z * sun_z
            if kind == CROWN:
                lit = 0.25 + 0.75 * lit
            if lit > 0:
                # from a little outside, or surfaces would shade themselves
                push = (0.08 + 0.8 * cells[0]) * (1.0 if kind != CROWN else 1.6)
                high = z + push * (n_z + 0.5 * sun_z) + 0.02
                at_x = x + push * (n_x + 0.5 * sun_x) + lean_x * high
                at_y = y + push * (n_y + 0.5 * sun_y) + lean_y * high
                share = _sunlit(at_x, at_y, high, corners[0, 0], corners[0, 1], cells[0], near)
                if share < 0:
                    push = (0.08 + 0.8 * cells[1]) * (1.0 if kind != CROWN else 1.6)
                    high = z + push * (n_z + 0.5 * sun_z) + 0.02
                    at_x = x + push * (n_x + 0.5 * sun_x) + lean_x * high
                    at_y = y + push * (n_y + 0.5 * sun_y) + lean_y * high
                    share = _sunlit(at_x, at_y, high, corners[1, 0], corners[1, 1], cells[1], far)
                if share >= 0:
                    lit *= share
            lit = max(lit, 0.0)
        lamplight = 0.0
        if night > 0:
            lamplight = night * _looked_up(
                x + 0.5 * n_x, y + 0.5 * n_y, lamp_corner[0], lamp_corner[1], lamps
            )
            lamplight *= min(1.0, 6.0 / (1.0 + max(z, 0.0)))
        upward = 0.5 + 0.5 * n_z
        # corners and the foot of walls see less of the sky
        open_sky = 1.0 if n_z > 0.5 else 0.72 + 0.28 * min(z / 6.0, 1.0)
        sky = _mixed(_of_row(colors, BOUNCE), _of_row(colors, AMBIENT), upward)
        glowing = (
            albedo[0] * shade * (lit * colors[SUN, 0] + lamplight * lamp[0] + open_sky * sky[0]),
            albedo[1] * shade * (lit * colors[SUN, 1] + lamplight * lamp[1] + open_sky * sky[1]),
            albedo[2] * shade * (lit * colors[SUN, 2] + lamplight * lamp[2] + open_sky * sky[2]),
        )

        if kind == LAMP:
            glow = night * 2.0
        if mirror > 0 or kind == LIQUID:
            r_x, r_y = v_x + 2 * facing * n_x, v_y + 2 * facing * n_y
            r_z = v_z + 2 * facing * n_z
            if kind == LIQUID:
                wave = 0.05 * _noise(x * 1.3, y * 1.3, 1.3 * steep, noise)
                r_x, r_y = r_x + wave, r_y - wave
            rise, shine = _rise(abs(r_z)), _shine(r_x * sun_x + r_y * sun_y + abs(r_z) * sun_z)
            grazing = 1 - min(facing, 1.0)
            fresnel = grazing * grazing
            fresnel = 0.04 + 0.96 * fresnel * fresnel * grazing
            # walls and trees stand around most of the horizon
            seen = 0.35 + 0.65 * min(max(r_z * 3, 0.0), 1.0)
            if is_glass > 0:
                fresnel += 0.12
            blue = _sky(colors, rise, shine)
            blue = seen * blue[0], seen * blue[1], seen * blue[2]
            glowing = _mixed(glowing, blue, mirror * fresnel)
        if glow > 0:
            glowing = (
                glowing[0] + glow * window[0],
                glowing[1] + glow * window[1],
                glowing[2] + glow * window[2],
            )
        glowing = _mixed(fog, glowing, _clear(extinction * distances[col]))
        if kind == CROWN and look.bareness > 0 and not is_evergreen[material]:
            # twigs: what is behind shows between them, which is the sky or the dull ground
            rise, shine = _rise(v_z), _shine(v_x * sun_x + v_y * sun_y + v_z * sun_z)
            gap = 0.0
            for k in range(3):  # three projections, as of leaves
                share = n_x * n_x if k == 0 else n_y * n_y if k == 1 else n_z * n_z
                if share > 0.02:
                    one, other = y if k == 0 else x, y if k == 2 else z
                    gap += share * _noise(one * 9.0 + offset, other * 9.0, 6.0 * steep, noise)
                    gap += share * _noise(one * 2.0 + offset, other * 2.0, 1.4 * steep, noise)
            gap *= 0.7 / np.sqrt(
                n_x * n_x * n_x * n_x + n_y * n_y * n_y * n_y + n_z * n_z * n_z * n_z
            )
            gap = look.bareness * min(max(0.55 + 0.4 * gap, 0.0), 0.95)
            behind = _sky(colors, rise, shine)
            if v_z <= 0:
                behind = (
                    0.5 * leaf_low[0] * (colors[AMBIENT, 0] + lit * colors[SUN, 0]),
                    0.5 * leaf_low[1] * (colors[AMBIENT, 1] + lit * colors[SUN, 1]),
                    0.5 * leaf_low[2] * (colors[AMBIENT, 2] + lit * colors[SUN, 2]),
                )
            glowing = _mixed(glowing, behind, gap)
        linear[row, col, 0], linear[row, col, 1], linear[row, col, 2] = glowing


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FUSED)
def shade_fan(
    fan: Any,
    picture: Any,
    substances: Any,
    light: Any,
    shadows: Any,
    look: Any,
    linear: np.ndarray,
) -> None:
    """Colours of what tracing.trace found, before exposure.

    Args:
        fan: A tracing.Fan.
        picture: A tracing.Picture.
        substances: A substances.Table.
        light: A light.Light.
        shadows: A shading.Shadows.
        look: A shading.Look.
        linear: (rows, columns, 3) float32; written.
    """
    eyes, sines, cosines, slopes = fan.eyes, fan.sines, fan.cosines, fan.slopes_by_row
    alongs, pixel = picture.along, look.pixel
    num_rows, num_columns = alongs.shape
    step = 1 if len(eyes) > 1 else 0
    place = np.empty((8, num_columns))
    levels = np.empty(num_columns)
    for row in range(num_rows):
        along, slope = alongs[row], slopes[row]
        # loop by loop, so that each is done for several columns at once
        for col in range(num_columns):
            levels[col] = 1 / np.sqrt(1 + slope[col] * slope[col])
        for i in range(3):
            start, ahead = place[i], place[3 + i]
            if i < 2:
                across = sines if i == 0 else cosines
                for col in range(num_columns):
                    start[col] = eyes[step * col, i] + across[col] * along[col]
                for col in range(num_columns):
                    ahead[col] = across[col] * levels[col]
            else:
                for col in range(num_columns):
                    start[col] = eyes[step * col, 2] + slope[col] * along[col]
                for col in range(num_columns):
                    ahead[col] = slope[col] * levels[col]
        distances, widths = place[6], place[7]
        for col in range(num_columns):
            distances[col] = along[col] / levels[col]
        for col in range(num_columns):
            widths[col] = distances[col] * pixel
        _shade_row(
            row,
            (place[0], place[1], place[2], place[3], place[4], place[5], place[6], place[7]),
            picture, substances, light, shadows, look, linear,
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def shade_draped(
    lean: np.ndarray,
    view: np.ndarray,
    picture: Any,
    substances: Any,
    light: Any,
    shadows: Any,
    look: Any,
    linear: np.ndarray,
) -> None:
    """As shade_fan, of what tracing.drape found; the distance through air is look.fog_m."""
    heights = picture.along
    num_rows, num_cols = heights.shape
    length = np.sqrt(1 + lean[0] * lean[0] + lean[1] * lean[1])
    place = np.empty((8, num_cols))
    for row in range(num_rows):
        for col in range(num_cols):
            place[0, col] = view[0] + (col + 0.5) * view[2] - lean[0] * heights[row, col]
            place[1, col] = view[1] - (row + 0.5) * view[2] - lean[1] * heights[row, col]
            place[2, col] = heights[row, col]
            place[3, col], place[4, col] = lean[0] / length, lean[1] / length
            place[5, col] = -1 / length
            place[6, col], place[7, col] = look.fog_m, view[2]
        _shade_row(
            row,
            (place[0], place[1], place[2], place[3], place[4], place[5], place[6], place[7]),
            picture, substances, light, shadows, look, linear,
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def light_lamps(lamps: np.ndarray, corner: np.ndarray, glow: np.ndarray) -> None:
    """Add up the light of lamps on the ground.

    Args:
        lamps: x and y of each, (lamps, 2).
        corner: West and north of the map of 1 m cells, (2,).
        glow: (rows, columns) float32; changed.
    """
    reach = 18
    for k in range(len(lamps)):
        x, y = lamps[k, 0] - corner[0], corner[1] - lamps[k, 1]
        for row in range(max(int(y) - reach, 0), min(int(y) + reach, len(glow))):
            for col in range(max(int(x) - reach, 0), min(int(x) + reach, glow.shape[1])):
                square = (col + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2
                fall = max(1 - square / (reach * reach), 0.0) / (1 + square / 25.0)
                glow[row, col] += fall * fall


@njit(cache=True, nogil=True, error_model="numpy")
def develop(
    linear: np.ndarray,
    gains: np.ndarray,
    saturation: float,
    blur: float,
    noise_levels: float,
    noise_seed: int,
    tones: np.ndarray,
    wraps: bool,
    rgb: np.ndarray,
) -> None:
    """From linear light to 8 bits: lens, exposure, tone curve, the sensor's noise.

    Args:
        linear: (rows, columns, 3) float32.
        gains: Of the channels, (3,).
        saturation: 1 leaves colours as they are.
        blur: Share of a pixel's light that its neighbours get.
        noise_levels: Standard deviation.
        noise_seed: Of the noise.
        tones: 8-bit levels of square roots of light from 0 to 2, float32.
        wraps: The last column is beside the first.
        rgb: (rows, columns, 3) uint8; written.
    """
    num_rows, num_cols = rgb.shape[:2]
    side, middle = np.float32(blur / 2), np.float32(1 - blur)
    last = len(tones) - 1
    scale = np.float32(0.5 * last)
    red_gain, green_gain, blue_gain = (
        np.float32(gains[0]),
        np.float32(gains[1]),
        np.float32(gains[2]),
    )
    much, none = np.float32(saturation), np.float32(0)
    spread = np.float32(2.449 * noise_levels / 1023.0)
    mixed = np.empty((num_cols + 2, 3), np.float32)
    for row in range(num_rows):
        above, below = max(row - 1, 0), min(row + 1, num_rows - 1)
        for col in range(num_cols):
            for i in range(3):
                mixed[col + 1, i] = middle * linear[row, col, i] + side * (
                    linear[above, col, i] + linear[below, col, i]
                )
        for i in range(3):
            mixed[0, i] = mixed[num_cols if wraps else 1, i]
            mixed[num_cols + 1, i] = mixed[1 if wraps else num_cols, i]
        for col in range(num_cols):
            red = middle * mixed[col + 1, 0] + side * (mixed[col, 0] + mixed[col + 2, 0])
            green = middle * mixed[col + 1, 1] + side * (mixed[col, 1] + mixed[col + 2, 1])
            blue = middle * mixed[col + 1, 2] + side * (mixed[col, 2] + mixed[col + 2, 2])
            grey = np.float32(0.3) * red + np.float32(0.59) * green + np.float32(0.11) * blue
            red = np.sqrt(max(grey + much * (red - grey), none) * red_gain) * scale
            green = np.sqrt(max(grey + much * (green - grey), none) * green_gain) * scale
            blue = np.sqrt(max(grey + much * (blue - grey), none) * blue_gain) * scale
            # half a level more: they are rounded
            red = tones[min(int(red), last)] + np.float32(0.5)
            green = tones[min(int(green), last)] + np.float32(0.5)
            blue = tones[min(int(blue), last)] + np.float32(0.5)
            if noise_levels > 0:
                # sums of two uniform numbers of 10 bits each
                h = np.uint64(row * num_cols + col) * np.uint64(0x9E3779B97F4A7C15)
                h += np.uint64(noise_seed) * np.uint64(0xD1B54A32D192ED03)
                h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                h ^= h >> np.uint64(31)
                bits = np.uint64(1023)
                draw = np.int64(h & bits) + np.int64((h >> np.uint64(10)) & bits) - 1023
                red += spread * np.float32(draw)
                draw = np.int64((h >> np.uint64(20)) & bits)
                draw += np.int64((h >> np.uint64(30)) & bits) - 1023
                green += spread * np.float32(draw)
                draw = np.int64((h >> np.uint64(40)) & bits)
                draw += np.int64((h >> np.uint64(50)) & bits) - 1023
                blue += spread * np.float32(draw)
            rgb[row, col, 0] = np.uint8(min(max(red, none), np.float32(255)))
            rgb[row, col, 1] = np.uint8(min(max(green, none), np.float32(255)))
            rgb[row, col, 2] = np.uint8(min(max(blue, none), np.float32(255)))

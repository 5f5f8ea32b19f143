"""Colours and patterns of the materials of a made-up world, as the shading kernels take them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from crossview.synthetic.materials import MATERIALS

GROUND, JOINTED, FACADE, ROOF, UPRIGHT, CROWN, LIQUID, BODY, LAMP = range(9)
"""How a surface is patterned."""


class _Substance(NamedTuple):
    """One material.

    Args:
        kind: How it is patterned.
        albedo: Linear red, green and blue.
        fine: Grain in metres, and strength, of its fine pattern.
        coarse: Likewise of its blotches.
        joint_m: Spacing of joints or courses, 0 where there are none.
        mirror: How much it mirrors, 0 to 1.
    """

    kind: int
    albedo: tuple[float, float, float]
    fine: tuple[float, float]
    coarse: tuple[float, float]
    joint_m: float = 0.0
    mirror: float = 0.0


_SUBSTANCES = {
    "soil": _Substance(GROUND, (0.17, 0.17, 0.08), (0.25, 0.22), (5.0, 0.20)),
    "grass": _Substance(GROUND, (0.09, 0.16, 0.04), (0.12, 0.25), (4.0, 0.14)),
    "water": _Substance(LIQUID, (0.02, 0.045, 0.05), (0.8, 0.10), (9.0, 0.10), 0.0, 1.0),
    "asphalt": _Substance(GROUND, (0.085, 0.085, 0.088), (0.05, 0.16), (3.0, 0.12)),
    "sett": _Substance(JOINTED, (0.16, 0.15, 0.14), (0.11, 0.22), (2.0, 0.10), 0.14),
    "slabs": _Substance(JOINTED, (0.27, 0.265, 0.25), (0.3, 0.09), (2.5, 0.10), 0.5),
    "gravel": _Substance(GROUND, (0.29, 0.26, 0.20), (0.06, 0.22), (2.0, 0.12)),
    "sand": _Substance(GROUND, (0.42, 0.36, 0.24), (0.08, 0.12), (3.0, 0.10)),
    "court": _Substance(GROUND, (0.25, 0.09, 0.05), (0.1, 0.08), (4.0, 0.06)),
    "paint": _Substance(GROUND, (0.62, 0.62, 0.60), (0.05, 0.14), (1.0, 0.12)),
    "kerb": _Substance(GROUND, (0.34, 0.34, 0.33), (0.2, 0.10), (1.5, 0.08)),
    "ballast": _Substance(GROUND, (0.15, 0.13, 0.12), (0.06, 0.30), (2.0, 0.10)),
    "plaster": _Substance(FACADE, (0.58, 0.53, 0.44), (0.15, 0.04), (2.5, 0.05)),
    "brick": _Substance(FACADE, (0.27, 0.11, 0.07), (0.12, 0.14), (2.0, 0.06), 0.08),
    "stone": _Substance(FACADE, (0.38, 0.34, 0.27), (0.35, 0.13), (2.0, 0.08), 0.4),
    "concrete": _Substance(FACADE, (0.34, 0.34, 0.33), (0.2, 0.05), (2.0, 0.09), 2.8),
    "glass": _Substance(FACADE, (0.10, 0.13, 0.15), (1.0, 0.03), (4.0, 0.03)),
    "timber": _Substance(FACADE, (0.28, 0.17, 0.09), (0.1, 0.12), (2.0, 0.06), 0.18),
    "sheet": _Substance(UPRIGHT, (0.40, 0.43, 0.46), (0.4, 0.04), (3.0, 0.06), 0.3, 0.1),
    "tiles": _Substance(ROOF, (0.33, 0.13, 0.075), (0.25, 0.12), (2.5, 0.09), 0.35),
    "slate": _Substance(ROOF, (0.12, 0.125, 0.14), (0.25, 0.12), (2.5, 0.08), 0.3),
    "roof_gravel": _Substance(ROOF, (0.30, 0.29, 0.27), (0.1, 0.14), (4.0, 0.14)),
    "roof_metal": _Substance(ROOF, (0.38, 0.41, 0.43), (0.5, 0.05), (4.0, 0.08), 0.6, 0.15),
    "bark": _Substance(UPRIGHT, (0.13, 0.09, 0.06), (0.06, 0.25), (0.5, 0.10)),
    "leaves": _Substance(CROWN, (0.07, 0.14, 0.03), (0.22, 0.34), (1.1, 0.24)),
    "needles": _Substance(CROWN, (0.035, 0.085, 0.035), (0.18, 0.36), (0.9, 0.22)),
    "hedge": _Substance(UPRIGHT, (0.06, 0.115, 0.03), (0.12, 0.32), (0.7, 0.15)),
    "fence": _Substance(UPRIGHT, (0.24, 0.18, 0.12), (0.12, 0.18), (1.0, 0.08)),
    "metal": _Substance(UPRIGHT, (0.26, 0.28, 0.29), (0.3, 0.05), (1.0, 0.05), 0.0, 0.15),
    "sign": _Substance(UPRIGHT, (0.55, 0.10, 0.08), (0.3, 0.05), (1.0, 0.05)),
    "signal": _Substance(UPRIGHT, (0.05, 0.05, 0.05), (0.3, 0.05), (1.0, 0.05)),
    "lamp": _Substance(LAMP, (0.5, 0.5, 0.48), (0.3, 0.05), (1.0, 0.05)),
    "paintwork": _Substance(BODY, (0.30, 0.30, 0.31), (0.5, 0.03), (1.0, 0.03), 0.0, 0.6),
    "car_glass": _Substance(BODY, (0.03, 0.035, 0.04), (0.5, 0.03), (1.0, 0.03), 0.0, 1.0),
    "clothes": _Substance(UPRIGHT, (0.18, 0.16, 0.16), (0.15, 0.15), (0.6, 0.15)),
}

_TINTS = {
    "plaster": (
        (0.68, 0.64, 0.55), (0.62, 0.46, 0.26), (0.55, 0.36, 0.28),
        (0.72, 0.71, 0.68), (0.42, 0.47, 0.50), (0.58, 0.58, 0.40),
    ),
    "brick": (
        (0.30, 0.11, 0.07), (0.22, 0.09, 0.07), (0.36, 0.19, 0.11),
        (0.42, 0.33, 0.22), (0.18, 0.11, 0.09), (0.33, 0.14, 0.10),
    ),
    "stone": (
        (0.42, 0.38, 0.30), (0.33, 0.31, 0.28), (0.48, 0.41, 0.29),
        (0.28, 0.25, 0.21), (0.38, 0.33, 0.30), (0.45, 0.43, 0.40),
    ),
    "concrete": (
        (0.36, 0.36, 0.35), (0.30, 0.30, 0.31), (0.42, 0.40, 0.37),
        (0.47, 0.47, 0.47), (0.33, 0.31, 0.28), (0.40, 0.42, 0.43),
    ),
    "glass": (
        (0.10, 0.13, 0.15), (0.07, 0.12, 0.12), (0.14, 0.15, 0.16),
        (0.09, 0.10, 0.15), (0.16, 0.14, 0.10), (0.11, 0.14, 0.17),
    ),
    "timber": (
        (0.28, 0.17, 0.09), (0.33, 0.07, 0.05), (0.42, 0.36, 0.26),
        (0.16, 0.11, 0.08), (0.50, 0.49, 0.45), (0.20, 0.25, 0.22),
    ),
    "tiles": (
        (0.36, 0.14, 0.08), (0.28, 0.11, 0.07), (0.40, 0.20, 0.11),
        (0.24, 0.14, 0.10), (0.30, 0.10, 0.06), (0.22, 0.17, 0.15),
    ),
    "slate": (
        (0.11, 0.115, 0.13), (0.15, 0.15, 0.16), (0.09, 0.09, 0.10),
        (0.13, 0.12, 0.13), (0.17, 0.18, 0.19), (0.12, 0.11, 0.10),
    ),
    "roof_gravel": (
        (0.33, 0.32, 0.30), (0.24, 0.24, 0.24), (0.40, 0.39, 0.37),
        (0.17, 0.17, 0.18), (0.46, 0.45, 0.43), (0.28, 0.27, 0.22),
    ),
    "roof_metal": (
        (0.42, 0.45, 0.47), (0.30, 0.33, 0.35), (0.50, 0.52, 0.53),
        (0.25, 0.36, 0.32), (0.38, 0.36, 0.33), (0.20, 0.24, 0.30),
    ),
    "paintwork": (
        (0.62, 0.62, 0.62), (0.03, 0.03, 0.035), (0.25, 0.26, 0.28),
        (0.35, 0.03, 0.03), (0.04, 0.09, 0.28), (0.45, 0.46, 0.48),
    ),
    "clothes": (
        (0.04, 0.05, 0.09), (0.35, 0.06, 0.06), (0.55, 0.53, 0.50),
        (0.06, 0.06, 0.06), (0.10, 0.20, 0.12), (0.40, 0.30, 0.12),
    ),
    "sign": (
        (0.60, 0.06, 0.06), (0.05, 0.14, 0.50), (0.65, 0.65, 0.63),
        (0.60, 0.48, 0.05), (0.60, 0.06, 0.06), (0.05, 0.14, 0.50),
    ),
}  # fmt: skip
"""Linear colours that things of a material have; the kernels want as many of each."""

_NUM_TINTS = 6
_SHOP = "_shop"
_GLAZED = "glass"
_PAVED = ("asphalt", "sett", "slabs", "paint", "kerb")
_EVERGREEN = ("needles",)


class Table(NamedTuple):
    """Everything about the materials, by their index, as shade_kernels take it.

    Args:
        kinds: (materials,) int64.
        albedos: (materials, 3) float64.
        tints: (materials, 6, 3) float64.
        num_tints: 6, or 0 where all things of a material have one colour, int64.
        fine: Grain and strength, (materials, 2) float64.
        coarse: Likewise.
        joints: Metres, (materials,) float64.
        mirrors: (materials,) float64.
        window_glass: 1 for windows in a wall, 2 for a wall of glass, 0 for none, int64.
        is_shop: Walls whose ground floor is a shop, bool.
        is_paved: Ground that is cleared of snow, bool.
        is_evergreen: Crowns that keep their leaves, bool.
    """

    kinds: np.ndarray
    albedos: np.ndarray
    tints: np.ndarray
    num_tints: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    joints: np.ndarray
    mirrors: np.ndarray
    window_glass: np.ndarray
    is_shop: np.ndarray
    is_paved: np.ndarray
    is_evergreen: np.ndarray


@functools.cache
def table() -> Table:
    """The materials of materials.MATERIALS."""
    names = [name.removesuffix(_SHOP) for name in MATERIALS]
    rows = [_SUBSTANCES[name] for name in names]
    plain = ((0.5, 0.5, 0.5),) * _NUM_TINTS
    is_facade = [row.kind == FACADE for row in rows]
    return Table(
        kinds=np.array([row.kind for row in rows]),
        albedos=np.array([row.albedo for row in rows]),
        tints=np.array([_TINTS.get(name, plain) for name in names]),
        num_tints=np.array([_NUM_TINTS if name in _TINTS else 0 for name in names]),
        fine=np.array([row.fine for row in rows]),
        coarse=np.array([row.coarse for row in rows]),
        joints=np.array([row.joint_m for row in rows]),
        mirrors=np.array([row.mirror for row in rows]),
        window_glass=np.where([name == _GLAZED for name in names], 2, is_facade).astype(np.int64),
        is_shop=np.array([name.endswith(_SHOP) for name in MATERIALS]),
        is_paved=np.array([name in _PAVED for name in names]),
        is_evergreen=np.array([name in _EVERGREEN for name in names]),
    )

import numpy as np
import pytest
import shapely

from crossview.features import COLUMNS, Feature, MapFeatures, feature_table, repaired
from crossview.tiles import GeoBounds

WORLD = GeoBounds(-180, -90, 180, 90)


def tree():
    return Feature("node", 1, "point", {"natural": "tree"}, shapely.Point(149.13, -35.28))


def test_table_has_the_columns_and_system_that_it_promises():
    table = feature_table([tree()])
    assert tuple(table.columns) == COLUMNS
    assert table.crs.to_epsg() == 4326
    assert np.isnan(table["height_m"].iat[0])
    assert table["min_height_m"].iat[0] == 0


def test_table_without_a_column_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"lacks tags, height_m; expected"):
        MapFeatures(feature_table([tree()]).drop(columns=["tags", "height_m"]), WORLD, "mine")


def test_table_in_another_system_is_an_error():
    table = feature_table([tree()]).to_crs("EPSG:32755")
    with pytest.raises(ValueError, match=r"EPSG:32755; expected EPSG:4326"):
        MapFeatures(table, WORLD, "mine")


def test_table_without_a_system_is_an_error():
    table = feature_table([tree()]).set_crs(None, allow_override=True)
    with pytest.raises(ValueError, match=r"is in None; expected EPSG:4326"):
        MapFeatures(table, WORLD, "mine")


def test_repair_leaves_valid_polygons_alone():
    box = shapely.box(0, 0, 2, 1)
    assert repaired([box])[0].equals_exact(box)


def test_repair_returns_polygons_only():
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    flat = shapely.Polygon([(0, 0), (1, 0), (2, 0)])
    triangles, nothing = repaired([bow_tie, flat])
    assert triangles.is_valid
    assert triangles.area == 2
    assert nothing.geom_type == "Polygon"
    assert nothing.is_empty

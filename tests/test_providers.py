"""Providers: right URLs, terms that are kept, keys that do not show, and WMTS capabilities."""

import dataclasses
import re
import urllib.parse
import warnings

import mercantile
import morecantile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossview.errors import ContentError, KeyMissingError, RefusedError
from crossview.tiles import TileId
from data_tools import capabilities, downloads, fetch, providers
from data_tools.fetch import Secret
from data_tools.providers import Provider

TILE = TileId(14, 8298, 5636)
TILES = st.integers(0, 20).flatmap(
    lambda zoom: st.builds(
        TileId, st.just(zoom), st.integers(0, 2**zoom - 1), st.integers(0, 2**zoom - 1)
    )
)


def query(url):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True))


# ---------------------------------------------------------------- URLs


def test_xyz_and_tms_count_rows_from_opposite_sides():
    xyz = providers.from_template("https://a.example/{z}/{x}/{y}.png")
    tms = providers.from_template("https://a.example/{z}/{x}/{y}.png", kind="tms")
    minus = providers.from_template("https://a.example/{z}/{x}/{-y}.png")
    assert xyz.url(TILE) == "https://a.example/14/8298/5636.png"
    assert tms.url(TILE) == minus.url(TILE) == "https://a.example/14/8298/10747.png"


@given(tile=TILES)
def test_quadkeys_are_mercantiles(tile):
    provider = providers.from_template("https://a.example/{q}?z={z}", max_zoom=20)
    key = provider.url(tile).removeprefix("https://a.example/").partition("?")[0]
    assert key == mercantile.quadkey(tile.x, tile.y, tile.zoom)


@given(tile=TILES)
def test_wms_boxes_are_morecantiles(tile):
    provider = providers.from_wms("https://a.example/wms?map=x&Layers=old", "ortho", max_zoom=20)
    values = query(provider.url(tile))
    box = morecantile.tms.get("WebMercatorQuad").xy_bounds(tile.x, tile.y, tile.zoom)
    got = [float(side) for side in values["BBOX"].split(",")]
    assert got == pytest.approx([box.left, box.bottom, box.right, box.top], abs=1e-3)
    assert (values["CRS"], values["WIDTH"], values["HEIGHT"]) == ("EPSG:3857", "256", "256")
    assert (values["map"], values["LAYERS"]) == ("x", "ortho")
    assert "Layers" not in values


def test_old_wms_has_srs():
    values = query(providers.from_wms("https://a.example", "o", version="1.1.1").url(TILE))
    assert values["SRS"] == "EPSG:3857"
    assert "CRS" not in values
    with pytest.raises(ValueError, match=r"1\.3\.0"):
        providers.from_wms("https://a.example", "o", version="2")


@given(tile=TILES)
def test_a_static_map_is_asked_for_at_the_middle_of_the_tile(tile):
    template = "https://a.example/m?c={lat},{lon}&z={zoom}&s={width}x{height}&scale={scale}"
    values = query(providers.from_template(template, tile_px=512, max_zoom=20).url(tile))
    lat_deg, lon_deg = map(float, values["c"].split(","))
    box = mercantile.xy_bounds(tile.x, tile.y, tile.zoom)
    x_m, y_m = mercantile.xy(lon_deg, lat_deg)
    pixel_m = (box.right - box.left) / 256
    assert x_m == pytest.approx((box.left + box.right) / 2, abs=0.01 * pixel_m + 1e-3)
    assert y_m == pytest.approx((box.bottom + box.top) / 2, abs=0.01 * pixel_m + 1e-3)
    assert (values["z"], values["s"], values["scale"]) == (str(tile.zoom), "256x256", "2")


def test_static_maps_that_count_zooms_of_512_pixels_are_asked_for_the_same_ground(monkeypatch):
    monkeypatch.setenv("CROSSVIEW_MAPBOX_KEY", "secret")
    provider = providers.from_template(
        "https://api.mapbox.com/styles/v1/mapbox/satellite-v9/static/{lon},{lat},{zoom}/{width}x{height}"
        "?access_token={key}"
    )
    url = provider.url(TileId(17, 66_370, 45_081))
    place, size = urllib.parse.urlsplit(url).path.split("/")[-2:]
    # 512 * 2**16 pixels around the world, as 256 * 2**17 are
    assert (place.split(",")[2], size) == ("16", "256x256")
    assert ",9.5/" in provider.static_url(50.0, 8.5, zoom=10.5)
    with pytest.raises(ValueError, match="zooms 1 to"):
        provider.url(TileId(0, 0, 0))


def test_a_static_map_around_a_place():
    template = "https://a.example/m?c={lat},{lon}&z={zoom}&s={width}x{height}&k={key}&x={scale}"
    provider = providers.from_template(template, key=Secret("abcd+efg"))
    values = query(provider.static_url(48.85, 2.33, zoom=19, width_px=640, height_px=400, scale=2))
    assert values == {"c": "48.8500000,2.3300000", "z": "19", "s": "640x400"} | {
        "k": "abcd+efg",
        "x": "2",
    }
    with pytest.raises(ValueError, match="not maps by centre"):
        providers.from_template("https://a.example/{z}/{x}/{y}").static_url(1, 2, zoom=3)


@pytest.mark.parametrize(
    ("tile", "words"),
    [
        ((20, 0, 0), "zooms 3 to 19, not 20"),
        ((2, 0, 0), "zooms 3 to 19, not 2"),
        ((4, 16, 0), "no tile"),
        ((4, 0, -1), "no tile"),
    ],
)
def test_tiles_that_are_not_there_have_no_url(tile, words):
    provider = providers.from_template("https://a.example/{z}/{x}/{y}", min_zoom=3)
    with pytest.raises(ValueError, match=words):
        provider.url(tile)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("https://a.example/{z}/{x}", r"needs \{z\}, \{x\}, \{y\}"),
        ("https://a.example/{z}/{x}/{y}/{hello}", "hello"),
        ("https://a.example/{z}/{x}/{y", "no template"),
        ("ftp://a.example/{z}/{x}/{y}", "http or https"),
    ],
)
def test_templates_that_cannot_work_are_refused(template, words):
    with pytest.raises(ValueError, match=words):
        providers.from_template(template)


def test_kinds_are_a_list():
    with pytest.raises(ValueError, match="kind is one of"):
        Provider("a", "wfs", "https://a.example/{z}/{x}/{y}")


# ---------------------------------------------------------------- keys


def test_the_key_is_in_the_url_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("CROSSVIEW_MAPTILER_KEY", "very+secret/key")
    provider = providers.from_catalogue("MapTiler.Satellite")
    assert provider.needs_key
    assert provider.url(TILE).endswith("?key=very%2Bsecret%2Fkey")
    given_key = providers.with_key(provider, Secret("very+secret/key"))
    assert given_key.url(TILE) == provider.url(TILE)
    shown = [
        provider.public_url(TILE),
        provider.public_template,
        *map(repr, (provider, given_key)),
        str(dataclasses.asdict(given_key)),
        str(given_key.metadata()),
    ]
    assert all("secret" not in text for text in shown)
    assert provider.public_url(TILE).endswith("?key=<key>")


def test_no_host_gets_the_key_of_another():
    hosts = (
        "api.mapbox.com", "api.maptiler.com", "maptiler", "api.example.org", "api-example.org",
        "api.example.com", "api_example.org", "a-.b", "a.-b", "a--b", "a_b", "a.b", "mapbox.org",
        "b\u00fccher.org", "mapbox.com.example.org",
    )  # fmt: skip
    names = {}
    for host in hosts:
        provider = providers.from_template(f"https://{host}/{{z}}/{{x}}/{{y}}?key={{key}}")
        names[host] = fetch.key_variable(provider.key_name)
    assert len(set(names.values())) == len(hosts)
    assert all(re.fullmatch("[A-Z0-9_]+", name) for name in names.values())
    assert names["api.mapbox.com"] == "CROSSVIEW_MAPBOX_KEY"
    assert names["api.maptiler.com"] == "CROSSVIEW_MAPTILER_KEY"
    assert names["api.example.org"] == "CROSSVIEW_API_EXAMPLE_ORG_KEY"


def test_a_layer_of_the_same_name_elsewhere_gets_no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CROSSVIEW_A_EXAMPLE_KEY", "the-key-of-a")
    urls = [f"https://{host}.example/{{z}}/{{x}}/{{y}}?key={{key}}" for host in "ab"]
    mine, other = (providers.from_template(url, name="ortho") for url in urls)
    assert mine.url(TILE).endswith("?key=the-key-of-a")
    with pytest.raises(KeyMissingError, match="CROSSVIEW_B_EXAMPLE_KEY"):
        other.url(TILE)


def test_a_key_pasted_into_a_template_does_not_reach_the_store(tmp_path):
    provider = providers.from_template("https://a.example/{z}/{x}/{y}?api_key=pasted-in")
    with downloads.store_for(provider, tmp_path / "a.mbtiles") as store:
        assert "pasted" not in str(store.metadata)
    assert b"pasted" not in (tmp_path / "a.mbtiles").read_bytes()


def test_a_login_in_a_template_is_a_header_and_nowhere_else(tmp_path):
    template = "https://bob:pa%2Fss-w0rd@a.example/{z}/{x}/{y}"
    provider = providers.from_template(template)
    assert provider.headers == {"Authorization": "Basic Ym9iOnBhL3NzLXcwcmQ="}
    assert provider.url(TILE) == "https://a.example/14/8298/5636"
    assert (provider.name, provider.key_name) == ("a.example", "a_example")
    with downloads.store_for(provider, tmp_path / "a.mbtiles") as store:
        assert store.metadata["crossview_template"] == "https://a.example/{z}/{x}/{y}"
        shown = [str(store.metadata), repr(provider), str(dataclasses.asdict(provider))]
    shown.append((tmp_path / "a.mbtiles").read_bytes().decode("latin-1"))
    assert not any(part in text for part in ("ss-w0rd", "Ym9iOnBh") for text in shown)
    assert providers.from_template("https://a.example/{z}/{x}/{y}").headers == {}
    wms = providers.from_wms("https://bob:pw@a.example/wms", "ortho")
    assert (wms.headers["Authorization"], wms.name) == ("Basic Ym9iOnB3", "a.example")
    with pytest.raises(ValueError, match="fields in a user name"):
        providers.from_template("https://{key}:@a.example/{z}/{x}/{y}")
    with pytest.raises(ValueError, match="http or https") as raised:
        providers.from_template("bob:pw-of-bob@a.example/{z}/{x}/{y}")
    assert "pw-of-bob" not in str(raised.value)


def test_a_missing_key_is_said_before_anything_is_fetched(monkeypatch, tmp_path):
    monkeypatch.delenv("CROSSVIEW_MAPTILER_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(KeyMissingError, match="CROSSVIEW_MAPTILER_KEY"):
        providers.from_catalogue("MapTiler.Satellite").url(TILE)


# ---------------------------------------------------------------- terms


@pytest.mark.parametrize(
    ("url", "bulk"),
    [
        ("https://tile.openstreetmap.org/{z}/{x}/{y}.png", "refuse"),
        ("https://a.tile.openstreetmap.org/{z}/{x}/{y}.png", "refuse"),
        ("https://{s}.tile.openstreetmap.org/{z}/{x}/{y}.png", "refuse"),
        ("https://mt1.google.com/vt/lyrs=s&x={x}&y={y}&z={z}", "refuse"),
        ("https://maps.googleapis.com/maps/api/staticmap?center={lat},{lon}&z={zoom}", "refuse"),
        ("https://services.arcgisonline.com/a/{z}/{y}/{x}", "ask"),
        ("https://api.mapbox.com/v4/{z}/{x}/{y}", "ask"),
        ("https://service.pdok.nl/a/{z}/{x}/{y}", "allow"),
        ("https://example.org/tile.openstreetmap.org/{z}/{x}/{y}", "ask"),
        ("https://notgoogle.com/{z}/{x}/{y}", "ask"),
    ],
)
def test_terms_go_with_the_host(url, bulk):
    assert providers.from_template(url).policy.bulk == bulk


@pytest.mark.parametrize("number", [1, 10**6])
def test_providers_that_forbid_storing_are_refused_whatever_one_says(number):
    for url in (
        "https://tile.openstreetmap.org/{z}/{x}/{y}.png",
        "https://maps.googleapis.com/maps/api/staticmap?center={lat},{lon}&zoom={zoom}&key={key}",
    ):
        with pytest.raises(RefusedError, match="Terms: https://"):
            providers.require_permission(providers.from_template(url), number, has_permission=True)


def test_unknown_hosts_are_refused_above_a_thousand_tiles_without_permission():
    provider = providers.from_template("https://example.org/{z}/{x}/{y}")
    providers.require_permission(provider, 1000)
    with pytest.raises(RefusedError, match="--i-have-permission"):
        providers.require_permission(provider, 1001)
    providers.require_permission(provider, 10**7, has_permission=True)


def test_the_default_is_open_and_may_be_downloaded():
    provider = providers.named()
    assert provider.policy.bulk == "allow"
    assert not provider.needs_key
    assert provider.attribution
    providers.require_permission(provider, 50_000)


def test_a_faster_rate_than_the_providers_is_refused():
    provider = providers.named()
    with pytest.raises(RefusedError, match="at most 10 times a second"):
        downloads.client_for(provider, rate_per_s=11)
    downloads.client_for(provider, rate_per_s=2).close()


def test_every_policy_says_where_the_terms_are():
    for hosts, policy in providers.POLICIES:
        assert policy.terms_url.startswith("https://"), hosts
        assert policy.reason.endswith("."), hosts
    with pytest.raises(ValueError, match="allow, ask or refuse"):
        dataclasses.replace(providers.UNKNOWN, bulk="maybe")


# ---------------------------------------------------------------- the catalogue


def test_the_catalogues_traps():
    assert providers.named("Esri.WorldImagery").max_zoom == 19
    mapbox = providers.named("MapBox")
    assert (mapbox.tile_px, mapbox.max_zoom) == (512, 17)
    for name, words in [
        ("Stadia.AlidadeSatellite", "marks .* as broken"),
        ("NASAGIBS.BlueMarble3031", "EPSG:3031"),
        ("AzureMaps.MicrosoftImagery", "Give max_zoom"),
        ("NoSuch.Thing", "No provider"),
    ]:
        with pytest.raises(ValueError, match=words):
            providers.named(name)
    assert providers.named("AzureMaps.MicrosoftImagery", max_zoom=19).max_zoom == 19


def test_dated_vintages_have_their_date():
    assert providers.named("GeoportailFrance.Orthoimagery_Orthophotos2016").capture_date == "2016"
    interval = providers.named("GeoportailFrance.Orthoimagery_Orthophotos_1950_1965")
    assert interval.capture_date == "1950/1965"
    assert providers.named().capture_date is None


def test_bounds_have_their_names():
    bounds = providers.named("SwissFederalGeoportal.SWISSIMAGE").bounds
    assert bounds.west < 8 < bounds.east
    assert bounds.south < 47 < bounds.north


def test_every_usable_entry_of_the_catalogue_gives_a_url():
    import xyzservices.providers

    num_usable = 0
    for name, entry in xyzservices.providers.flatten().items():
        try:
            provider = providers.from_catalogue(name)
        except ValueError as error:
            assert re.search(r"broken|EPSG|largest zoom", str(error)), name
            continue
        num_usable += 1
        tile = TileId(provider.min_zoom, 0, 0)
        url = provider.public_url(tile)
        assert "{" not in url, name
        if not entry.requires_token() and not entry.get("tms"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert url == entry.build_url(x=0, y=0, z=tile.zoom), name
    assert num_usable > 500


# ---------------------------------------------------------------- WMTS

HEAD = (
    '<Capabilities xmlns="http://www.opengis.net/wmts/1.0" '
    'xmlns:ows="http://www.opengis.net/ows/1.1" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'version="1.0.0">'
)
GET_TILE = (
    '<ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP>'
    '<ows:Get xlink:href="https://w.example/wmts?"><ows:Constraint name="GetEncoding">'
    "<ows:AllowedValues><ows:Value>KVP</ows:Value></ows:AllowedValues></ows:Constraint></ows:Get>"
    "</ows:HTTP></ows:DCP></ows:Operation></ows:OperationsMetadata>"
)
REST = (
    '<ResourceURL format="image/png" resourceType="tile" template='
    '"https://w.example/{Style}/{Time}/{TileMatrixSet}/{TileMatrix}/{TileRow}/{TileCol}.png"/>'
    '<ResourceURL format="image/jpeg" resourceType="tile" template='
    '"https://w.example/{Style}/{Time}/{TileMatrixSet}/{TileMatrix}/{TileRow}/{TileCol}.jpg"/>'
    '<ResourceURL format="text/plain" resourceType="FeatureInfo" template="https://w.example/i"/>'
)


def matrix_set(name="PM", *, crs="urn:ogc:def:crs:EPSG::3857", prefix="", px=256, zooms=range(20)):
    """As morecantile has the pyramid, not as we do."""
    matrices = morecantile.tms.get("WebMercatorQuad").tileMatrices
    body = "".join(
        f"<TileMatrix><ows:Identifier>{prefix}{zoom}</ows:Identifier>"
        f"<ScaleDenominator>{matrices[zoom].scaleDenominator * 256 / px!r}</ScaleDenominator>"
        "<TopLeftCorner>-20037508.3427892 20037508.3427892</TopLeftCorner>"
        f"<TileWidth>{px}</TileWidth><TileHeight>{px}</TileHeight>"
        f"<MatrixWidth>{2**zoom}</MatrixWidth><MatrixHeight>{2**zoom}</MatrixHeight></TileMatrix>"
        for zoom in zooms
    )
    return (
        f"<TileMatrixSet><ows:Identifier>{name}</ows:Identifier>"
        f"<ows:SupportedCRS>{crs}</ows:SupportedCRS>{body}</TileMatrixSet>"
    )


def layer_xml(name="ortho", *, sets=("PM",), urls="", limits=""):
    links = "".join(
        f"<TileMatrixSetLink><TileMatrixSet>{one}</TileMatrixSet>{limits}</TileMatrixSetLink>"
        for one in sets
    )
    return (
        f"<Layer><ows:Title>Pictures</ows:Title><ows:WGS84BoundingBox>"
        "<ows:LowerCorner>5 45</ows:LowerCorner><ows:UpperCorner>11 48</ows:UpperCorner>"
        f"</ows:WGS84BoundingBox><ows:Identifier>{name}</ows:Identifier>"
        "<Style><ows:Identifier>grey</ows:Identifier></Style>"
        '<Style isDefault="true"><ows:Identifier>normal</ows:Identifier></Style>'
        "<Format>image/png</Format><Format>image/jpeg</Format>"
        "<Dimension><ows:Identifier>Time</ows:Identifier><Default>2024</Default>"
        f"<Value>2023</Value><Value>2024</Value></Dimension>{links}{urls}</Layer>"
    )


def document(*layers, sets=None, operations=GET_TILE):
    provider = (
        "<ows:ServiceProvider><ows:ProviderName>The Office</ows:ProviderName></ows:ServiceProvider>"
    )
    sets = matrix_set() if sets is None else sets
    contents = f"<Contents>{''.join(layers)}{sets}</Contents>"
    return f"{HEAD}{provider}{operations}{contents}</Capabilities>".encode()


def test_a_restful_wmts():
    layer = capabilities.wmts_layer(document(layer_xml(urls=REST)))
    provider = providers.from_wmts(layer)
    assert provider.kind == "wmts"
    assert provider.url(TILE) == "https://w.example/normal/2024/PM/14/5636/8298.jpg"
    assert (provider.min_zoom, provider.max_zoom, provider.tile_px) == (0, 19, 256)
    assert (provider.name, provider.attribution) == ("ortho", "The Office")
    assert tuple(provider.bounds) == (5, 45, 11, 48)


def test_a_wmts_by_key_and_value():
    layer = capabilities.wmts_layer(document(layer_xml(), layer_xml("other")), "ortho")
    provider = providers.from_wmts(layer)
    assert provider.kind == "wmts-kvp"
    assert query(provider.url(TILE)) == {
        "SERVICE": "WMTS",
        "REQUEST": "GetTile",
        "VERSION": "1.0.0",
        "LAYER": "ortho",
        "STYLE": "normal",
        "FORMAT": "image/jpeg",
        "TILEMATRIXSET": "PM",
        "TIME": "2024",
        "TILEMATRIX": "14",
        "TILEROW": "5636",
        "TILECOL": "8298",
    }


def test_names_of_matrices_need_not_be_zooms_and_limits_are_kept():
    limits = "<TileMatrixSetLimits>" + "".join(
        f"<TileMatrixLimits><TileMatrix>EPSG:3857:{zoom}</TileMatrix></TileMatrixLimits>"
        for zoom in range(6, 18)
    )
    limits += "</TileMatrixSetLimits>"
    sets = matrix_set("G", crs="urn:ogc:def:crs:EPSG::900913", prefix="EPSG:3857:")
    layer = capabilities.wmts_layer(document(layer_xml(sets=["G"], limits=limits), sets=sets))
    provider = providers.from_wmts(layer)
    assert query(provider.url(TILE))["TILEMATRIX"] == "EPSG:3857:14"
    assert (provider.min_zoom, provider.max_zoom) == (6, 17)


def test_large_tiles_keep_the_pyramids_zoom():
    sets = matrix_set(px=512, zooms=range(1, 18))
    provider = providers.from_wmts(capabilities.wmts_layer(document(layer_xml(), sets=sets)))
    assert (provider.tile_px, provider.min_zoom, provider.max_zoom) == (512, 1, 17)


def test_the_matrix_set_in_web_mercator_is_found_among_others():
    other = matrix_set("LV95", crs="urn:ogc:def:crs:EPSG::2056")
    sets = other + matrix_set()
    layer = capabilities.wmts_layer(document(layer_xml(sets=["LV95", "PM"]), sets=sets))
    assert "TILEMATRIXSET=PM" in layer.template
    with pytest.raises(ValueError, match=r"no tiles in Web Mercator.*LV95 is in .*2056"):
        capabilities.wmts_layer(document(layer_xml(sets=["LV95"]), sets=sets))


@pytest.mark.parametrize(
    "broken",
    [
        matrix_set().replace("-20037508.3427892 20", "-20037008.3427892 20"),
        matrix_set().replace("<TileHeight>256", "<TileHeight>200"),
        re.sub(r"<ScaleDenominator>([\d.]+)", r"<ScaleDenominator>9\1", matrix_set()),
    ],
)
def test_a_pyramid_of_another_shape_is_refused(broken):
    with pytest.raises(ValueError, match="not of the usual pyramid"):
        capabilities.wmts_layer(document(layer_xml(), sets=broken))


def test_an_unknown_layer_is_refused_with_the_known_ones():
    content = document(layer_xml("a"), layer_xml("b"))
    for asked in ("c", None):
        with pytest.raises(ValueError, match="it has 2: a, b"):
            capabilities.wmts_layer(content, asked)


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">'
    b"<!ENTITY c '&b;&b;&b;&b;'>]><Capabilities>&c;</Capabilities>"
)


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        BOMB.decode().encode("utf-16"),
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x.dtd"> %p;]><x/>',
    ],
)
def test_entities_are_refused_before_they_are_expanded(content):
    with pytest.raises(ContentError, match="entities"):
        capabilities.wmts_layer(content)


def test_an_exception_report_is_told_in_its_words():
    report = (
        '<ows:ExceptionReport xmlns:ows="http://www.opengis.net/ows/1.1" version="1.0.0">'
        '<ows:Exception exceptionCode="MissingParameterValue" locator="service"><ows:ExceptionText>'
        "No service was named</ows:ExceptionText></ows:Exception></ows:ExceptionReport>"
    )
    with pytest.raises(ContentError, match=r"an error: No service was named$"):
        capabilities.wmts_layer(report.encode())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a.example/service", "http://a.example/service?SERVICE=WMTS&REQUEST=GetCapabilities"),
        ("http://a.example/wmts?", "http://a.example/wmts?SERVICE=WMTS&REQUEST=GetCapabilities"),
        ("http://a.example/1.0.0/WMTSCapabilities.xml", None),
        ("http://a.example/wmts?key=abc", None),
    ],
)  # fmt: skip
def test_a_services_capabilities_are_asked_for(url, expected):
    assert capabilities.document_url(url) == (expected or url)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>Not found", "Expected XML"),
        (b"\x89PNG\r\n", "Expected XML"),
        (b"", "Expected XML"),
        (b"<WMS_Capabilities/>", "capabilities of a WMTS"),
        (b"<a/>" + b" " * capabilities.MAX_DOCUMENT_BYTES, "too large"),
    ],
)
def test_what_are_no_capabilities_is_said(content, words):
    with pytest.raises(ContentError, match=words):
        capabilities.wmts_layer(content)

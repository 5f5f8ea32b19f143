"""Open imagery in STAC catalogues: which images show an area, their dates and their terms.

Needs the extra `stac` (pystac-client).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossview.errors import ContentError, MissingExtraError, ProviderDownError
from crossview.tiles import GeoBounds
from data_tools import fetch
from data_tools.areas import Area

if TYPE_CHECKING:
    import pystac

RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "image/png", "image/jpeg")
"""Media types of assets that are pictures, best first."""

PICTURE_ROLES = ("visual", "data")

MAX_IMAGES = 1_000


@dataclass(frozen=True)
class StacImage:
    """One image of a catalogue.

    Args:
        item_id: Its name there.
        collection: Of which collection.
        href: Where its file is.
        date: When it was taken, ISO 8601; an interval as START/END; "" where it does not say.
        bounds: What it shows.
        cell_m: Size of a pixel as the catalogue says it (gsd), or None.
        licence: As the catalogue says it.
        attribution: Who made it.
    """

    item_id: str
    collection: str
    href: str
    date: str
    bounds: GeoBounds
    cell_m: float | None
    licence: str
    attribution: str


def search(
    url: str,
    area: Area,
    *,
    collections: Sequence[str],
    dates: str | None = None,
    asset: str | None = None,
    max_images: int = MAX_IMAGES,
) -> list[StacImage]:
    """Images that show a part of an area, newest first.

    Args:
        url: Of the catalogue's landing page.
        area: What they must show; one over the antimeridian is asked for in two parts.
        collections: Their names; a catalogue of everything answers with everything.
        dates: A date or an interval, as "2020/2022".
        asset: Name of the file in an item; by default the first picture.
        max_images: At most so many.

    Raises:
        MissingExtraError: The extra is not installed.
        ProviderDownError: The catalogue does not answer.
        ContentError: Its answer is no STAC.
    """
    try:
        import pystac_client
        from pystac_client.exceptions import APIError
    except ImportError as error:
        raise MissingExtraError(
            "STAC catalogues need pystac-client: pip install 'crossview[stac]'."
        ) from error
    from pystac import STACError

    try:
        catalogue = pystac_client.Client.open(url)
        items = {
            item.id: item
            for piece in area.pieces
            for item in catalogue.search(
                collections=list(collections) or None,
                intersects=piece.shape.__geo_interface__,
                datetime=dates,
                max_items=max_images,
            ).items()
        }
        sources = {name: _source_of(catalogue, name) for name in sorted(_names(items.values()))}
        found = [image for item in items.values() for image in _images(item, asset, sources)]
    except APIError as error:
        raise ProviderDownError(
            f"The STAC catalogue {fetch.redacted(url)} does not answer: "
            f"{fetch.redacted(str(error))}"
        ) from None
    except (STACError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise ContentError(
            f"{fetch.redacted(url)} does not answer as a STAC catalogue: "
            f"{fetch.redacted(str(error))}"
        ) from None
    return sorted(found, key=lambda image: image.date, reverse=True)[:max_images]


def _names(items: Any) -> set[str]:
    return {item.collection_id for item in items if item.collection_id}


def _source_of(catalogue: Any, name: str) -> tuple[str, str]:
    """Licence and makers of a collection."""
    collection = catalogue.get_collection(name)
    makers = [provider.name for provider in collection.providers or ()]
    return collection.license or "", ", ".join(makers)


def _images(
    item: pystac.Item, asset: str | None, sources: dict[str, tuple[str, str]]
) -> Iterator[StacImage]:
    chosen = _picture(item, asset)
    if chosen is None or item.bbox is None:
        return
    half = len(item.bbox) // 2  # boxes may have heights
    licence, attribution = sources.get(item.collection_id or "", ("", ""))
    said = item.properties
    date = said.get("datetime") or "/".join(
        filter(None, (said.get("start_datetime"), said.get("end_datetime")))
    )
    gsd = chosen.extra_fields.get("gsd", said.get("gsd"))
    yield StacImage(
        item.id,
        item.collection_id or "",
        chosen.get_absolute_href() or chosen.href,
        date,
        GeoBounds(*item.bbox[:2], *item.bbox[half : half + 2]),
        None if gsd is None else float(gsd),
        said.get("license") or licence,
        attribution,
    )


def _picture(item: pystac.Item, asset: str | None) -> Any:
    if asset is not None:
        if asset not in item.assets:
            names = ", ".join(sorted(item.assets)) or "none"
            raise ValueError(f"{item.id} has no asset {asset!r}; it has {names}.")
        return item.assets[asset]

    def rank(candidate: Any) -> tuple[int, int]:
        roles, kinds = candidate.roles or (), (candidate.media_type or "").split(";")[0]
        role = next(
            (i for i, name in enumerate(PICTURE_ROLES) if name in roles), len(PICTURE_ROLES)
        )
        return role, RASTER_TYPES.index(kinds)

    pictures = [
        candidate
        for candidate in item.assets.values()
        if (candidate.media_type or "").split(";")[0] in RASTER_TYPES
        and "thumbnail" not in (candidate.roles or ())
        and "overview" not in (candidate.roles or ())
    ]
    return min(pictures, key=rank, default=None)

"""Satellite imagery of a place: its tiles, and the mosaics, crops and manifests made of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossview.errors import (
    ContentError,
    CrossviewError,
    DatasetError,
    ManifestError,
    StoreError,
)
from crossview.frames import LocalFrame
from crossview.tiles import TileId
from data_tools import capabilities, downloads, fetch, galleries, providers, tile_plans
from data_tools import crops as gallery
from data_tools.areas import Area, TileCover, cover_around
from data_tools.crops import DEFAULT_OVERLAP, Crop, CropSize, WrittenCrop
from data_tools.fetch import Client
from data_tools.imagery import (
    EDGE_PX,
    FileImagery,
    Imagery,
    Origin,
    TileImagery,
    open_archive,
)
from data_tools.mosaics import Mosaic, num_tiles_of, require_dense, write_mosaic
from data_tools.points import Points
from data_tools.providers import Provider, require_permission
from data_tools.tile_plans import Plan, ground_resolution_m, tile_ids
from data_tools.tile_store import TileStore

if TYPE_CHECKING:
    from crossview.manifest import Manifest

STORE_FILE = "tiles.mbtiles"
CROPS_FOLDER = "crops"
MANIFEST_FOLDER = "manifest"
ARCHIVE_SUFFIXES = (".mbtiles", ".pmtiles")

_log = logging.getLogger(__name__)

Progress = Callable[[int], None]


def _silent(_: int) -> None:
    return None


def _no_bar(total: int, unit: str) -> AbstractContextManager[Progress]:  # noqa: ARG001
    return nullcontext(_silent)


@dataclass(frozen=True, eq=False)
class Job:
    """What to make, and of what.

    Args:
        source: A provider, or a file: GeoTIFF, COG, VRT, MBTiles, PMTiles.
        area: What it is about; of crops, all that they show.
        out: Folder of everything that is made.
        zoom: Of tiles; None where the source is a raster file, or an archive's largest.
        crops: To cut, if any.
        frames: Of the crops' regions, by name.
        views: A manifest whose views the crops are for: theirs becomes one with tiles and pairs.
        with_mosaic: Join the tiles into a COG.
        image_format: Of the crops, png or jpg.
        min_covered: Share of a crop that must be covered; else it is left out.
        tile_px: Side of an archive's tiles, where it is not 256.
        said: Attributes of Origin to say of a file instead of what it says itself.
        name: Of the dataset and the mosaic; "" for that of the folder, and that of the area.
        copy_images: Copy the views' images into the dataset, else they stay where they are.
        overwrite: Replace a manifest of other views or crops.
    """

    source: Provider | Path
    area: Area
    out: Path
    zoom: int | None = None
    crops: Sequence[Crop] = ()
    frames: dict[str, LocalFrame] = field(default_factory=dict)
    views: Manifest | None = None
    with_mosaic: bool = True
    image_format: str = "png"
    min_covered: float = 1.0
    tile_px: int | None = None
    said: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    copy_images: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not (self.with_mosaic or self.crops):
            raise ValueError("There is nothing to make: neither a mosaic nor crops.")
        if not 0 <= self.min_covered <= 1:
            raise ValueError(
                f"min_covered is a share of a crop, from 0 to 1; got {self.min_covered:g}."
            )
        if self.views is not None and self.crops:
            self.roots(self.views)  # or it raises

    @property
    def store_path(self) -> Path:
        """Where the tiles are kept as the server sent them."""
        return self.out / STORE_FILE

    @property
    def crops_folder(self) -> Path:
        """Where crops are written."""
        return self.out / CROPS_FOLDER

    @property
    def manifest_folder(self) -> Path:
        """Where the manifest is written."""
        return self.out / MANIFEST_FOLDER

    def roots(self, views: Manifest) -> galleries.Roots:
        """Where images of the views and crops are in the manifest.

        Raises:
            DatasetError: They are not copied, and have no folder in common.
        """
        if self.copy_images:
            return galleries.roots_of_copies(views, self.crops_folder, self.manifest_folder)
        return galleries.roots_in_place(views, self.crops_folder)

    @property
    def dataset_name(self) -> str:
        """Its name, or that of the folder."""
        return self.name or self.out.resolve().name

    def cover(self, zoom: int, tile_px: int) -> TileCover:
        """The tiles that the products need."""
        covers = []
        if self.with_mosaic:
            covers = [piece.cover(zoom) for piece in self.area.pieces]
            for cover in covers:
                require_dense(cover)
        if self.crops:
            side_m = self.crops[0].grid.width * self.crops[0].grid.cell_m
            centers = gallery.centers_of(self.crops)
            across_m, _ = ground_resolution_m(float(np.abs(centers.lat_deg).min()), zoom, tile_px)
            edge_m = EDGE_PX * max(across_m, self.crops[0].grid.cell_m)
            half_m = side_m / 2 * gallery.TURN_MARGIN + edge_m
            covers.append(cover_around(centers, half_m, zoom))
        runs = [np.concatenate(axis) for axis in zip(*(c.runs() for c in covers), strict=True)]
        return TileCover.of_runs(zoom, *runs)


@dataclass(frozen=True, eq=False)
class Result:
    """What was made.

    Args:
        mosaics: One for each side of the antimeridian; without a path where none was written.
        crops: Every crop, with what became of it.
        manifest: Folder of the manifest, or None where there are no crops.
        download: What became of the tiles, or None where nothing was fetched.
    """

    mosaics: tuple[Mosaic, ...]
    crops: tuple[WrittenCrop, ...]
    manifest: Path | None
    download: downloads.DownloadReport | None

    @property
    def num_missing_tiles(self) -> int:
        """Tiles that could not be had, or do not exist."""
        if self.download is None:
            return sum(mosaic.num_missing for mosaic in self.mosaics)
        return len(self.download.failed) + self.download.absent

    @property
    def num_missing_crops(self) -> int:
        """Crops that were left out."""
        return sum(crop.file is None for crop in self.crops)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for is there."""
        return not (self.num_missing_tiles or self.num_missing_crops)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        report = self.download
        fetched = None
        if report is not None:
            fetched = {
                "stored": report.stored,
                "already": report.already,
                "absent": report.absent,
                "failed": [{"tile": list(tile), "reason": why} for tile, why in report.failed],
                "bytes": report.bytes,
                "seconds": round(report.seconds, 3),
            }
        return {
            "complete": self.is_complete,
            "tiles": fetched,
            "mosaics": [
                {**asdict(mosaic), "path": None if mosaic.path is None else str(mosaic.path)}
                for mosaic in self.mosaics
            ],
            "crops": {
                "written": len(self.crops) - self.num_missing_crops,
                "left_out": [crop.crop.tile_id for crop in self.crops if crop.file is None],
            },
            "manifest": None if self.manifest is None else str(self.manifest),
        }


def job_of(
    source: Provider | Path,
    target: Area | Points | Manifest,
    out: Path,
    *,
    zoom: int | None = None,
    resolution_m: float | None = None,
    radius_m: float | None = None,
    crop_m: float | None = None,
    crop_px: int | None = None,
    cell_m: float | None = None,
    overlap: float = DEFAULT_OVERLAP,
    on_grid: bool = False,
    with_mosaic: bool | None = None,
    **options: Any,
) -> Job:
    """The job of imagery for a place.

    An area gets a mosaic, or crops on a grid if a crop's size is given; points, and the stations of
    a manifest, get a crop each.

    Args:
        source: A provider or a file.
        target: An area; or points; or a manifest whose views want satellite imagery.
        out: Folder of what is made.
        zoom: Of tiles; or resolution_m.
        resolution_m: Largest size of a pixel on the ground, either way.
        radius_m: Around points, half the side of a square.
        crop_m: Side of a crop on the ground; two of crop_m, crop_px and cell_m say the third, and
            one of them alone means cells like the imagery's pixels.
        crop_px: Side in pixels.
        cell_m: Side of a pixel on the ground.
        overlap: Of neighbours on a grid.
        on_grid: A grid over the squares around points, instead of a crop on each.
        with_mosaic: Join the tiles too; by default where there are no crops.
        options: Other arguments of Job.

    Raises:
        ValueError: The arguments do not fit together, or a zoom that the provider does not have.
    """
    places: Any = None if isinstance(target, Area) else _places(target)
    lat_deg = target.center[0] if isinstance(target, Area) else float(places[0].lat_deg.mean())
    lats_deg = target.shape.bounds[1::2] if isinstance(target, Area) else places[0].lat_deg
    zoom = _zoom(source, zoom, resolution_m, tile_plans.lat_ends_deg(lats_deg)[0])
    size = CropSize.of(crop_m, crop_px, cell_m, pixel_m=_pixel_m(source, zoom, lat_deg))
    frames: dict[str, LocalFrame] = {}
    crops: list[Crop] = []
    if isinstance(target, Area):
        area = target
        if size is not None:
            region = gallery.file_name(area.name) or "region"
            frames, crops = gallery.grid_crops(area, size, overlap=overlap, region=region)
    else:
        half_m = radius_m or (size.side_m / 2 if size else 0.0)
        points, frames, regions = places
        area = Area.around(points, half_m)
        if size is not None and on_grid:
            for region, frame in frames.items():
                part = Area.around(points.chosen(regions == region), half_m)
                crops += gallery.grid_crops(
                    part, size, overlap=overlap, region=region, frame=frame
                )[1]
        elif size is not None:
            crops = gallery.centred_crops(points, size, frames, regions)
    if isinstance(source, Provider):
        tile_plans.require_coverage(source, area)
    job = Job(
        source,
        area,
        Path(out),
        zoom,
        crops,
        frames,
        None if isinstance(target, Area | Points) else target,
        with_mosaic=not crops if with_mosaic is None else with_mosaic,
        **options,
    )
    return job if job.views is None else _beside(job, job.views)


def _beside(job: Job, views: Manifest) -> Job:
    """The job, its crops under names that other tiles of the views' manifest have not."""
    if not (job.crops and len(views.tiles)):
        return job
    provider = _origin(job).provider
    named = galleries.names_beside(
        views, job.crops, job.crops_folder, provider=provider, image_format=job.image_format
    )
    if named[0].tile_id != job.crops[0].tile_id:
        _log.info(
            "%s has other tiles of these names, so the new ones are called %s and so on.",
            views.name,
            named[0].tile_id,
        )
    return replace(job, crops=named)


def _places(target: Points | Manifest) -> tuple[Points, dict[str, LocalFrame], np.ndarray]:
    """Points, frames by region, and the region of each point."""
    if isinstance(target, Points):
        return target, *gallery.regions_of(target)
    return galleries.places_of(target)


def _zoom(
    source: Provider | Path, zoom: int | None, resolution_m: float | None, lat_deg: float
) -> int | None:
    if zoom is not None and resolution_m is not None:
        raise ValueError("A zoom or a resolution, not both: each says the other.")
    if not isinstance(source, Provider):
        if resolution_m is not None:
            raise ValueError(f"{source.name} has the resolution that it has. Say --cell-m instead.")
        return zoom
    if resolution_m is not None:
        return tile_plans.zoom_for_resolution(source, lat_deg, resolution_m)
    if zoom is None:
        raise ValueError(
            f"Which resolution? Give --zoom ({source.min_zoom} to {source.max_zoom}) or "
            "--resolution in metres per pixel."
        )
    return tile_plans.checked_zoom(source, zoom)


def _pixel_m(source: Provider | Path, zoom: int | None, lat_deg: float) -> float | None:
    """The coarser side of a pixel, where that is known without opening files."""
    if not isinstance(source, Provider) or zoom is None:
        return None
    return max(ground_resolution_m(lat_deg, zoom, source.tile_px))


def plan(job: Job, **options: Any) -> Plan:
    """What the job's download takes; nothing is fetched. Options are those of tile_plans.plan."""
    provider, zoom = _provider_and_zoom(job)
    cover = job.cover(zoom, provider.tile_px)
    return tile_plans.plan(provider, job.area, cover, job.store_path, **options)


def refusals(job: Job, plan: Plan, *, has_permission: bool = False, yes: bool = False) -> list[str]:
    """Why the download of a plan would be refused before it begins; nothing is fetched.

    Args:
        job: What to make.
        plan: Of its download.
        has_permission: See providers.require_permission.
        yes: See Plan.require_sensible.
    """
    provider, zoom = _provider_and_zoom(job)
    num_kept, reasons = 0, []
    try:
        require_room(job)
    except CrossviewError as error:
        reasons.append(str(error))
    if job.store_path.is_file():
        with TileStore(job.store_path) as store:
            num_kept = len(store)
            try:
                store.require_source(provider.tile_px, provider.metadata())
            except StoreError as error:
                reasons.append(str(error))
    # what the store would hold, which may be of other areas too
    num_tiles = max(plan.num_tiles, num_kept + plan.num_missing)
    checks: tuple[Callable[[], object], ...] = (
        lambda: plan.require_sensible(yes=yes),
        lambda: require_permission(provider, num_tiles, has_permission=has_permission),
        lambda: downloads.client_for(provider, rate_per_s=plan.rate_per_s).close(),
        lambda: provider.url(TileId(zoom, 0, 0)),
    )
    for check in checks:
        try:
            check()
        except (CrossviewError, ValueError) as error:
            reasons.append(str(error))
    return reasons


def require_room(job: Job) -> None:
    """Refuse a folder that has a manifest of something else (see galleries.require_same).

    Raises:
        DatasetError: It has, and is not to be overwritten.
    """
    if not job.crops or job.overwrite:
        return
    try:
        before = galleries.manifest_there(job.manifest_folder)
    except ManifestError as error:
        raise DatasetError(
            f"{job.manifest_folder} is there, and cannot be read: {error} Name another --out, or "
            "replace it with --overwrite."
        ) from error
    if before is not None:
        galleries.require_same(before, _planned_manifest(job), job.crops)


def fetch_tiles(
    job: Job,
    *,
    rate_per_s: float | None = None,
    has_permission: bool = False,
    refresh: bool = False,
    ask_absent_again: bool = False,
    progress: Progress = _silent,
) -> downloads.DownloadReport:
    """Fetch the tiles of a job that are not there yet into its store; see downloads.download.

    Args:
        job: What they are for.
        rate_per_s: Tiles a second; by default the provider's.
        has_permission: See providers.require_permission.
        refresh: Ask first whether stored ones have changed, and fetch those that have.
        ask_absent_again: Ask also for those that are known not to exist.
        progress: Called with the number of tiles that are done since the last call.
    """
    provider, zoom = _provider_and_zoom(job)
    require_room(job)
    cover = job.cover(zoom, provider.tile_px)
    require_permission(provider, cover.num_tiles, has_permission=has_permission)
    wanted = tile_ids(cover)
    # a missing key and a wrong rate are said before anything is made
    provider.url(wanted[0])
    client = downloads.client_for(provider, rate_per_s=rate_per_s)
    job.out.mkdir(parents=True, exist_ok=True)
    with client, downloads.store_for(provider, job.store_path) as store:
        if ask_absent_again:
            store.forget_absent()
        revalidation = None
        if refresh:
            revalidation = downloads.revalidate(provider, wanted, store, client, progress=progress)
        report = downloads.download(
            provider, wanted, store, client, has_permission=has_permission, progress=progress
        )
    return report if revalidation is None else report.after(revalidation)


def make_products(
    job: Job,
    report: downloads.DownloadReport | None = None,
    *,
    bar: Callable[[int, str], AbstractContextManager[Progress]] = _no_bar,
) -> Result:
    """The job's mosaic, crops and manifest, of its tiles or its file; nothing is fetched.

    Args:
        job: What to make.
        report: Of the download before.
        bar: From a total and a unit to what is called with the number of units done since.
    """
    require_room(job)
    mosaics: list[Mosaic] = []
    written: list[WrittenCrop] = []
    with _opened(job) as imagery:
        if job.with_mosaic:
            if not isinstance(imagery, TileImagery):
                raise ValueError(
                    f"{job.source} is one image already, so there is nothing to join. Ask for "
                    "crops: --crop-m and --crop-px."
                )
            for piece in replace(job.area, name=job.name or job.area.name).pieces:
                path = job.out / f"{gallery.file_name(piece.name) or 'area'}.tif"
                # what a server could not send today is no reason to lose what it sent before
                num_before = num_tiles_of(path) if report is not None and report.failed else 0
                cover = piece.cover(imagery.zoom)
                with bar(cover.num_tiles, "tile") as progress:
                    mosaic = write_mosaic(
                        imagery, cover, path, min_tiles=num_before, progress=progress
                    )
                mosaics.append(mosaic)
                if mosaic.path is None:
                    kept = f"; {path} stays as it was" if path.exists() else ""
                    _log.warning(
                        "No mosaic is written of %d of %d tiles%s.",
                        mosaic.num_tiles,
                        cover.num_tiles,
                        kept,
                    )
        with bar(len(job.crops), "crop") as progress:
            for crop in gallery.write_crops(
                imagery,
                job.crops,
                job.crops_folder,
                image_format=job.image_format,
                min_covered=job.min_covered,
            ):
                written.append(crop)
                progress(1)
        manifest = _save_manifest(job, written, imagery.origin, report) if job.crops else None
    return Result(tuple(mosaics), tuple(written), manifest, report)


def wmts_provider(url: str, layer: str | None = None, **facts: Any) -> Provider:
    """A layer of a WMTS, by the URL of its capabilities document.

    Args:
        url: Of the document, or of the service; a login in it is used for tiles of the same server.
        layer: Its identifier; None where there is only one.
        facts: Attributes of Provider that replace the document's.

    Raises:
        ContentError: There is no such document; with the server's words.
    """
    url, login = fetch.split_login(capabilities.document_url(url))
    with Client(providers.policy_of(url).rate_per_s) as client:
        response = client.get(url, headers=fetch.login_headers(login))
    if response.status != 200:
        said = fetch.words(response.body, response.content_type)
        raise ContentError(
            f"{fetch.redacted(url)} is not the capabilities of a WMTS: status {response.status}."
            + (f" The server says: {said}" if said else "")
        )
    described = capabilities.wmts_layer(response.body, layer, url=url)
    if fetch.server_of(described.template) == fetch.server_of(url):
        facts = {"login": login, **facts}
    return providers.from_wmts(described, **facts)


def origin_of(provider: Provider) -> Origin:
    """What must be said of a provider's imagery."""
    return Origin(
        provider.name, provider.attribution, provider.terms_url, provider.capture_date or ""
    )


def _provider_and_zoom(job: Job) -> tuple[Provider, int]:
    if not isinstance(job.source, Provider) or job.zoom is None:
        raise ValueError(f"Nothing is fetched of {job.source}; it is a file.")
    return job.source, job.zoom


@contextmanager
def _opened(job: Job) -> Iterator[Imagery]:
    if isinstance(job.source, Provider):
        _, zoom = _provider_and_zoom(job)
        with TileStore(job.store_path) as store:
            yield TileImagery(store, zoom, origin_of(job.source), job.source.tile_px)
    elif job.source.suffix.lower() in ARCHIVE_SUFFIXES:
        with open_archive(job.source, zoom=job.zoom, tile_px=job.tile_px) as archive:
            archive.origin = replace(archive.origin, **job.said)
            yield archive
    else:
        image = FileImagery(job.source)
        image.origin = replace(image.origin, **job.said)
        yield image


def _origin(job: Job) -> Origin:
    if isinstance(job.source, Provider):
        return origin_of(job.source)
    with _opened(job) as imagery:
        return imagery.origin


def _manifest_of(job: Job, written: Sequence[WrittenCrop], origin: Origin) -> Manifest:
    if job.views is not None:
        return galleries.with_views(job.views, written, origin, job.roots(job.views))
    return galleries.gallery_of(
        written,
        origin,
        job.frames,
        job.crops_folder,
        job.manifest_folder,
        name=job.dataset_name,
    )


def _planned_manifest(job: Job) -> Manifest:
    """What there will be if the imagery covers every crop."""
    written = [WrittenCrop(crop, 1.0, f"{crop.tile_id}.{job.image_format}") for crop in job.crops]
    return _manifest_of(job, written, _origin(job))


def _manifest_before(job: Job) -> Manifest | None:
    try:
        return galleries.manifest_there(job.manifest_folder)
    except ManifestError:
        return None  # and is to be overwritten: see require_room


def _save_manifest(
    job: Job,
    written: Sequence[WrittenCrop],
    origin: Origin,
    report: downloads.DownloadReport | None,
) -> Path | None:
    folder = job.manifest_folder
    there = [crop for crop in written if crop.file is not None]
    kept = f"; {folder} stays as it was" if folder.exists() else ""
    if not there:
        _log.warning("No crop is covered by the imagery, so no manifest is written%s.", kept)
        return None
    require_room(job)  # it may have changed since the beginning
    made = _manifest_of(job, there, origin)
    before = _manifest_before(job)
    is_same = before is not None and not galleries.difference(
        before, _planned_manifest(job), job.crops
    )
    num_before = 0 if before is None or not is_same else len(before.tiles)
    if report is not None and report.failed and len(made.tiles) < num_before:
        _log.warning(
            "After failures only %d of %d tiles could be made%s.", len(made.tiles), num_before, kept
        )
        return None
    if job.views is not None and (copied := job.roots(job.views).copied) is not None:
        galleries.copy_images(job.views, copied)
    if before is not None and is_same:
        made = galleries.filled(made, before)
    saved = galleries.save(made, folder, views=job.views, before=before)
    if before is not None and not is_same:
        num_removed = galleries.remove_orphans(before, saved, job.crops_folder)
        _log.info("%d crops of the manifest that was replaced are removed.", num_removed)
    return folder

"""Manifests on disk: older versions, rows appended under kills, links, checksums."""

import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fakes import manifests as fake

from crossview import appends, manifest_schema, tables
from crossview.errors import ManifestError
from crossview.frames import Pose
from crossview.manifest import Manifest


@pytest.fixture
def images(tmp_path):
    return fake.write_images(tmp_path / "images", fake.views())


@pytest.fixture
def saved(tmp_path, images):
    return fake.manifest(images).save(tmp_path / "made-up")


def rows(*names):
    return [fake.view(name, "side", Pose(10, 20, 30)) for name in names]


def bytes_below(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------- older versions


def make_older(folder, version):
    """A manifest as an older crossview wrote it, by leaving out what came later."""
    newer = {
        name: {
            column
            for since, added in manifest_schema.ADDED_COLUMNS.items()
            if since > version
            for column in added.get(name, ())
        }
        for name in Manifest.TABLES
    }
    manifest = Manifest.load(folder)
    for name, columns in manifest_schema.SCHEMA.items():
        kept = [column for column in columns if column.name not in newer[name]]
        tables.write(folder / f"{name}.csv", getattr(manifest, name), kept)
    set_version(folder, version)


def set_version(folder, version):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))


VERSION_1_VIEWS = (
    "view_id,region,station_id,sequence_id,order,time_utc,kind,image,camera_id,lat_deg,lon_deg,"
    "heading_deg,roll_deg,pitch_deg,height_m,accuracy_m,split,licence"
)


def test_a_manifest_of_version_1_is_read_and_what_came_later_is_not_known(saved):
    make_older(saved.folder, 1)
    assert (saved.folder / "views.csv").read_text().splitlines()[0] == VERSION_1_VIEWS
    manifest = Manifest.load(saved.folder)
    assert manifest_schema.problems(saved.folder) == []
    assert manifest.views.equals(saved.views)
    assert set(manifest.views["sha256"]) == {""}
    assert manifest.views["magnetic_heading_deg"].isna().all()


def test_a_version_in_between_has_what_came_until_then(saved, monkeypatch):
    added = {**manifest_schema.ADDED_COLUMNS, 3: {"pairs": ("relation",)}}
    monkeypatch.setattr(manifest_schema, "ADDED_COLUMNS", added)
    monkeypatch.setattr(manifest_schema, "SCHEMA_VERSION", 3)
    make_older(saved.folder, 2)
    assert (saved.folder / "pairs.csv").read_text() == "view_id,tile_id\n"
    assert Manifest.load(saved.folder).views.equals(saved.views)
    edit = saved.folder / "views.csv"
    edit.write_text(edit.read_text().replace(",sha256", ",checksum", 1))
    with pytest.raises(ManifestError, match=r"views\.csv row 1: .*missing 'sha256'"):
        Manifest.load(saved.folder)


def test_a_newer_version_is_refused(saved):
    set_version(saved.folder, 3)
    with pytest.raises(ManifestError, match="schema_version is 3 and this crossview reads 1 to 2"):
        Manifest.load(saved.folder)


@pytest.mark.parametrize(
    "upgrade", [Manifest.append, lambda folder: Manifest.load(folder).rewrite()]
)
def test_an_older_manifest_is_brought_up_to_date_in_place(saved, upgrade):
    before = bytes_below(saved.folder)
    make_older(saved.folder, 1)
    upgrade(saved.folder)
    assert bytes_below(saved.folder) == before


def test_an_upgrade_that_was_killed_halfway_is_still_read(saved):
    table = (saved.folder / "views.csv").read_bytes()
    make_older(saved.folder, 1)
    (saved.folder / "views.csv").write_bytes(table)
    assert Manifest.load(saved.folder).views.equals(saved.views)


# ---------------------------------------------------------------- appending


def test_rows_are_added_behind_those_that_are_there(saved):
    before = bytes_below(saved.folder)
    manifest = Manifest.append(saved.folder, views=rows("n", "m"))
    after = bytes_below(saved.folder)
    assert after["views.csv"].startswith(before["views.csv"])
    assert {name for name in after if after[name] != before.get(name)} == {"views.csv"}
    assert Manifest.load(saved.folder).views.equals(manifest.views)
    assert manifest.views["view_id"].tolist()[-2:] == ["n", "m"]
    assert manifest.pose("m").x_m == pytest.approx(10)


def test_several_tables_grow_together(saved):
    tile = {"tile_id": "t", "region": "town", "image": "t.png", "lat_deg": 48.85, "lon_deg": 2.33,
            "cell_m": 0.2, "provider": "Somebody"}  # fmt: skip
    Manifest.append(saved.folder, pairs=[{"view_id": "p", "tile_id": "t"}], tiles=[tile])
    manifest = Manifest.load(saved.folder)
    assert manifest.tiles["provider"].tolist() == ["Somebody"]
    assert len(manifest.pairs) == 1


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"views": rows("n") + rows("a-1")}, r"views\.csv row 8, column view_id: 'a-1' is in"),
        ({"views": [*rows("n"), {**rows("m")[0], "pitch_deg": 100}]}, r"row 8, column pitch_deg"),
        ({"pairs": [{"view_id": "z", "tile_id": "t"}]}, r"pairs\.csv row 2, column view_id"),
        ({"photos": []}, "Unknown table 'photos'"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_to_those_that_are_there_change_nothing(saved, added, message):
    before = bytes_below(saved.folder)
    with pytest.raises(ManifestError, match=message):
        Manifest.append(saved.folder, **added)
    assert bytes_below(saved.folder) == before


def test_a_table_in_another_order_and_without_a_last_line_end_grows_too(saved):
    path = saved.folder / "regions.csv"
    path.write_bytes("\ufefflon_deg,name,lat_deg\r\n2.33,town,48.85".encode())
    Manifest.append(saved.folder, regions=[{"name": "Zürich", "lat_deg": 47.0, "lon_deg": 8.5}])
    assert Manifest.load(saved.folder).frame("Zürich").lon_deg == 8.5


def test_half_a_row_of_a_killed_append_is_not_read_and_cut_off_by_the_next(saved):
    path = saved.folder / "views.csv"
    size = path.stat().st_size
    (saved.folder / appends.JOURNAL).write_text(json.dumps({"views.csv": size}))
    with path.open("a") as file:
        file.write("n,town,,,0,2014-06")
    assert Manifest.load(saved.folder).views.equals(saved.views)
    assert manifest_schema.problems(saved.folder) == []
    Manifest.append(saved.folder, views=rows("n"))
    assert not (saved.folder / appends.JOURNAL).exists()
    assert len(Manifest.load(saved.folder).views) == len(saved.views) + 1


def test_after_a_kill_the_folder_can_still_be_replaced(saved):
    (saved.folder / appends.JOURNAL).write_text('{"views.csv": 10}')
    assert len(saved.save(saved.folder, overwrite=True).views) == len(saved.views)


@pytest.mark.parametrize(
    "content", ['{"../victim.csv": 0}', '{"victim": 0}', "{", "[]", '{"a.csv": "x"}']
)
def test_a_journal_never_cuts_off_other_files(saved, content):
    victim = saved.folder.parent / "victim.csv"
    victim.write_text("precious")
    (saved.folder / appends.JOURNAL).write_text(content)
    with pytest.raises(ManifestError, match="no journal of an append"):
        Manifest.append(saved.folder, views=rows("n"))
    assert victim.read_text() == "precious"


def test_rows_are_never_added_through_a_link(saved):
    victim = saved.folder.parent / "victim.csv"
    (saved.folder / "views.csv").rename(victim)
    (saved.folder / "views.csv").symlink_to(victim)
    content = victim.read_text()
    with pytest.raises(ManifestError, match="symbolic link"):
        Manifest.append(saved.folder, views=rows("n"))
    (saved.folder / appends.JOURNAL).write_text('{"views.csv": 0}')
    with pytest.raises(ManifestError, match="symbolic link"):
        Manifest.append(saved.folder, views=rows("n"))
    assert victim.read_text() == content


def test_two_writers_do_not_mix(saved):
    with (
        appends.writing(saved.folder, "dataset.json"),
        pytest.raises(ManifestError, match="Another process is changing"),
    ):
        Manifest.append(saved.folder, views=rows("n"))
    Manifest.append(saved.folder, views=rows("n"))


APPEND_UNTIL_KILLED = """
import itertools, os, sys
from crossview.manifest import Manifest
folder = sys.argv[1]
row = dict(Manifest.load(folder).views.iloc[0], station_id="")
print("ready", flush=True)
for i in itertools.count():
    Manifest.append(folder, views=[dict(row, view_id=f"{os.getpid()}-{i}-{j}") for j in range(200)])
"""


@pytest.mark.slow
def test_killed_at_random_moments_appends_lose_nothing_and_leave_no_part(saved):
    start = time.perf_counter()
    Manifest.append(saved.folder, views=rows(*(f"n{i}" for i in range(200))))
    append_s = time.perf_counter() - start
    num_rows = [len(Manifest.load(saved.folder).views)]
    for delay_s in np.random.default_rng(0).uniform(0, 5 * append_s, 8):
        command = [sys.executable, "-c", APPEND_UNTIL_KILLED, str(saved.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay_s)
            process.kill()
        assert manifest_schema.problems(saved.folder) == []
        num_rows.append(len(Manifest.load(saved.folder).views))
        assert (num_rows[-1] - num_rows[0]) % 200 == 0
    assert num_rows == sorted(num_rows)
    assert num_rows[-1] > num_rows[0]


DIE_IN_AN_APPEND = """
import os, signal, sys
from pathlib import Path
from crossview import appends, tables
from crossview.manifest import Manifest
folder, num_characters = Path(sys.argv[1]), int(sys.argv[2])
row = dict(Manifest.load(folder).views.iloc[0], station_id="", view_id="new")
blocks, unlink = tables.csv_blocks, Path.unlink
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def part(*arguments):
    yield "".join(blocks(*arguments))[:num_characters]
    raise KeyboardInterrupt
if num_characters:
    tables.csv_blocks = part
else:
    Path.unlink = lambda self, **options: (
        die() if self.name == appends.JOURNAL and self.exists() else unlink(self, **options)
    )
try:
    # what is left of the file object is flushed on its way out, and then the process is gone
    Manifest.append(folder, views=[row])
except KeyboardInterrupt:
    die()
"""


@pytest.mark.parametrize("num_characters", [1, 20, 0])
def test_killed_inside_of_an_append_the_old_rows_stay(saved, num_characters):
    before = (saved.folder / "views.csv").stat().st_size
    command = [sys.executable, "-c", DIE_IN_AN_APPEND, str(saved.folder), str(num_characters)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    after = (saved.folder / "views.csv").stat().st_size
    # 0 dies when the row is complete and the journal still there
    assert after == before + num_characters if num_characters else after > before + 20
    assert Manifest.load(saved.folder).views.equals(saved.views)
    Manifest.append(saved.folder, views=rows("n"))
    assert Manifest.load(saved.folder).views["view_id"].tolist()[-2:] == ["p", "n"]


def test_a_table_is_rewritten_in_place_and_the_rest_stays(saved):
    before = bytes_below(saved.folder)
    (saved.folder / "notes.txt").write_text("mine")
    views = saved.views.assign(split="train")
    changed = type(saved)(**{**vars_of(saved), "views": views})
    changed.rewrite("views")
    assert set(Manifest.load(saved.folder).views["split"]) == {"train"}
    after = bytes_below(saved.folder)
    assert after.pop("notes.txt") == b"mine"
    assert {name for name in after if after[name] != before[name]} == {"views.csv"}


def vars_of(manifest):
    names = (*manifest_schema.DATASET_KEYS, *Manifest.TABLES, "folder")
    return {name: getattr(manifest, name) for name in names}


# ---------------------------------------------------------------- files


def test_a_link_out_of_the_images_is_not_followed(saved, images, tmp_path):
    (images / "photos" / "a-1.png").rename(tmp_path / "secret.png")
    (images / "photos" / "a-1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ManifestError, match=r"leads out of .* by a symbolic link"):
        saved.photo("a-1")
    found = [problem for problems in saved.file_problems() for problem in problems]
    assert [(p.file, p.row, p.column) for p in found] == [("views.csv", 2, "image")]


def test_links_inside_of_the_images_and_to_them_are_fine(saved, images, tmp_path):
    (images / "photos" / "a-1.png").rename(images / "kept.png")
    (images / "photos" / "a-1.png").symlink_to("../kept.png")
    images.rename(tmp_path / "elsewhere")
    images.symlink_to("elsewhere")
    assert saved.photo("a-1").image.shape == (30, 40, 3)


def test_a_map_behind_a_link_is_neither_read_nor_copied(tmp_path, images):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.osm").symlink_to(tmp_path / "secret")
    maps = [{"region": "town", "file": "a.osm", "kind": "osm"}]
    fake.manifest(images, maps=maps).write(tmp_path / "m")
    manifest = Manifest.load(tmp_path / "m")
    with pytest.raises(ManifestError, match="leads out of"):
        manifest.map_files()
    with pytest.raises(ManifestError, match="leads out of"):
        manifest.save(tmp_path / "copy")


@pytest.mark.parametrize(
    "path", ["..", "a/../../b.png", "a/..", "//server/a.png", "\\a.png", "a\0b.png", "C:a.png"]
)
def test_no_path_leaves_its_root(images, path):
    with pytest.raises(ManifestError, match=r"views\.csv row 2, column image"):
        fake.manifest(images, views=[{**rows("v")[0], "image": path}])


def test_dots_in_a_name_are_not_a_way_out(images):
    names = ["a..b.png", "...png", "..a/b.png", "./a.png"]
    views = [{**row, "image": name} for row, name in zip(rows(*"abcd"), names, strict=True)]
    assert fake.manifest(images, views=views).views["image"].tolist() == names


def test_checksums_are_those_of_the_files_and_a_changed_file_is_found(saved, images, tmp_path):
    manifest = saved.with_checksums().save(tmp_path / "summed")
    expected = hashlib.sha256((images / "photos" / "p.png").read_bytes()).hexdigest()
    assert manifest.views["sha256"].tolist()[4] == expected
    assert [problem for problems in manifest.file_problems() for problem in problems] == []
    (images / "photos" / "p.png").write_bytes(_other_panorama(images))
    found = [str(problem) for problems in manifest.file_problems() for problem in problems]
    assert len(found) == 1
    assert found[0].startswith("views.csv row 6, column image: photos/p.png is not the file")


def _other_panorama(images):
    from PIL import Image

    Image.new("RGB", (80, 40), (1, 2, 3)).save(images / "other.png")
    return (images / "other.png").read_bytes()


def test_a_checksum_is_64_small_hexadecimal_digits(images):
    for text in ("abc", "A" * 64):
        with pytest.raises(ManifestError, match=r"column sha256: .*64 hexadecimal digits"):
            fake.manifest(images, views=[{**rows("v")[0], "sha256": text}])

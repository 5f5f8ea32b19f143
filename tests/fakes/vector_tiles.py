"""Vector tiles and archives of them, written out from their specifications."""

import gzip
import json
import struct

from data_tools import pmtiles

UNITS = 4096


def archive(tiles, *, box, zoom, metadata=None):
    """A PMTiles archive of {(column, row): bytes}; box in degrees."""
    entries = sorted((pmtiles.tile_id(zoom, *place), tile) for place, tile in tiles.items())
    ids = [number for number, _ in entries]
    steps = [number - before for before, number in zip([0, *ids], ids, strict=False)]
    packed = [gzip.compress(tile) for _, tile in entries]
    offsets = [sum(map(len, packed[:i])) for i in range(len(packed))]
    numbers = [len(ids), *steps, *[1] * len(ids), *map(len, packed), *(o + 1 for o in offsets)]
    root = gzip.compress(b"".join(map(varint, numbers)))
    said = gzip.compress(json.dumps(metadata or {}).encode())
    end = 127 + len(root) + len(said)
    places = (127, len(root), 127 + len(root), len(said), end, 0, end, sum(map(len, packed)))
    header = b"PMTiles\x03" + struct.pack("<11Q", *places, *[len(ids)] * 3)
    header += bytes([1, 2, 2, 1, zoom, zoom])
    header += struct.pack("<4i", *(round(side * 1e7) for side in box)) + bytes(9)
    return header + root + said + b"".join(packed)


def tile(layers):
    """A tile of {name: [feature]}; see feature."""
    return b"".join(field(3, layer(name, features)) for name, features in layers.items())


def feature(kind, paths, tags, *, id=None):
    """Kind "point", "line" or "area"; paths in units of the tile, rings closed by repetition."""
    return kind, paths, tags, id


def layer(name, features, *, units=UNITS):
    keys = sorted({key for *_, tags, _ in features for key in tags})
    values = list(dict.fromkeys((type(v), v) for *_, tags, _ in features for v in tags.values()))
    content = field(15, 2) + field(1, name.encode())
    for kind, paths, tags, number in features:
        pairs = [(keys.index(k), values.index((type(v), v))) for k, v in tags.items()]
        content += field(
            2,
            (b"" if number is None else field(1, number))
            + field(2, b"".join(varint(i) for pair in pairs for i in pair))
            + field(3, ("point", "line", "area").index(kind) + 1)
            + field(4, b"".join(map(varint, commands(kind, paths)))),
        )
    content += b"".join(field(3, key.encode()) for key in keys)
    content += b"".join(field(4, value(v)) for _, v in values)
    return content + field(5, units)


def commands(kind, paths):
    at = (0, 0)
    for path in paths:
        places = path[:-1] if kind == "area" else path
        for i, (x, y) in enumerate(places):
            if i < 2:
                yield 1 | 1 << 3 if i == 0 else 2 | (len(places) - 1) << 3
            yield from (zigzag(x - at[0]), zigzag(y - at[1]))
            at = (x, y)
        if kind == "area":
            yield 7 | 1 << 3


def value(v):
    if isinstance(v, bool):
        return field(7, int(v))
    if isinstance(v, int):
        return field(6, zigzag(v))
    if isinstance(v, float):
        return varint(3 << 3 | 1) + struct.pack("<d", v)
    return field(1, v.encode())


def field(number, content):
    """A field of a protocol buffer: an integer, or bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def zigzag(number):
    return 2 * number if number >= 0 else -2 * number - 1


def varint(number):
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def ring(west, north, east, south):
    """An outer ring in units (y grows south), clockwise as it is seen."""
    return [(west, north), (east, north), (east, south), (west, south), (west, north)]

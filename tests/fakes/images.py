"""Made-up image files: EXIF, GPano, damaged ones and bombs."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
ORIENTATION = 0x0112
FOCAL_LENGTH_35MM = 0xA405

PLACE = {1: "N", 2: (49.0, 16.0, 56.47), 3: "W", 4: (123.0, 6.0, 52.04)}
"""GPS tags of 49 deg 16' 56.47" N, 123 deg 6' 52.04" W."""


def plain_image(width_px=40, height_px=30):
    """Smooth colours, so that JPEG keeps them."""
    cols, rows = np.meshgrid(np.arange(width_px), np.arange(height_px))
    red, green = 255 * cols / max(width_px - 1, 1), 255 * rows / max(height_px - 1, 1)
    return np.stack([red, green, np.full_like(red, 128)], axis=-1).round().astype(np.uint8)


def exif(*, orientation=None, photo=None, gps=None):
    """EXIF with tags of the photo's and the GPS directory."""
    tags = Image.Exif()
    if orientation is not None:
        tags[ORIENTATION] = orientation
    for ifd, values in ((EXIF_IFD, photo), (GPS_IFD, gps)):
        if values:
            tags.get_ifd(ifd).update(values)
            tags[ifd] = dict(tags.get_ifd(ifd))
    return tags


def write_jpeg(path, image=None, *, tags=None, xmp=None):
    """A JPEG file; returns its path."""
    image = plain_image() if image is None else image
    options = {} if tags is None else {"exif": tags}
    if xmp is not None:
        options["xmp"] = xmp
    Image.fromarray(image).save(path, "JPEG", quality=95, subsampling=0, **options)
    return Path(path)


def write_png(path, image=None, *, xmp=None):
    """A PNG file; returns its path."""
    info = PngImagePlugin.PngInfo()
    if xmp is not None:
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    Image.fromarray(plain_image() if image is None else image).save(path, "PNG", pnginfo=info)
    return Path(path)


def phone_photo(path, *, gps=PLACE, focal_35mm=28, orientation=None, image=None):
    """A JPEG as a phone writes it."""
    photo = None if focal_35mm is None else {FOCAL_LENGTH_35MM: focal_35mm}
    return write_jpeg(path, image, tags=exif(orientation=orientation, photo=photo, gps=gps))


def truncated_jpeg(path, *, keep=0.6):
    """A JPEG whose end is missing."""
    buffer = io.BytesIO()
    Image.fromarray(plain_image(200, 150)).save(buffer, "JPEG", quality=95)
    content = buffer.getvalue()
    Path(path).write_bytes(content[: int(keep * len(content))])
    return Path(path)


def png_bomb(path, *, width_px=30_000, height_px=30_000):
    """A PNG of a few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    Path(path).write_bytes(content)
    return Path(path)


def gpano(*, as_elements=False, **tags):
    """A raw XMP packet with GPano tags, as attributes or as elements."""
    name_space = 'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
    attributes = "" if as_elements else " ".join(f'GPano:{k}="{v}"' for k, v in tags.items())
    elements = "".join(f"<GPano:{k}>{v}</GPano:{k}>" for k, v in tags.items() if as_elements)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {name_space} {attributes}>{elements}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()

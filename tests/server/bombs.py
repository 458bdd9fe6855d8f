"""Files that a reader of images had better not believe."""

import io
import struct
import zipfile
import zlib
from functools import cache

from PIL import Image

PAYLOAD = b"<html><script>alert(document.domain)</script><?php system('id') ?></html>"


def saved(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 77).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def jpeg(*segments: bytes) -> bytes:
    """A JPEG with further segments."""
    file = saved("JPEG")
    return file[:2] + b"".join(segments) + file[2:]


def segment(kind: int, data: bytes) -> bytes:
    return bytes((0xFF, kind)) + struct.pack(">H", len(data) + 2) + data


def scans(count: int) -> bytes:
    """A progressive JPEG of 4 megapixels whose last scan is repeated."""
    file = saved("JPEG", (2_000, 2_000), "L", progressive=True)
    return file[:-2] + file[file.rindex(b"\xff\xda") : -2] * count + file[-2:]


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A TIFF with a directory of (tag, type, count, value), and the place of the next one."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following) + bytes(1_000)


def tiff_of(width: int, height: int, **others: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: 1_000}
    tags |= {int(name.removeprefix("tag")): value for name, value in others.items()}
    return tiff(*((tag, 4, 1, value) for tag, value in tags.items()), following=8)


def zipped(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil", bytes(count))
    return file.getvalue()


def frames(kind: str, count: int) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.new("P", (8, 8), number % 250) for number in range(count)]
    first.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


@cache
def bombs() -> dict[str, bytes]:
    """Hostile files by what they are."""
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000)))
    bmp = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 2_000, 0, 0, 1_078, 40, 9_000, 9_000, 1, 8, 1, 900, 0, 0, 256, 0)
    webp = b"VP8X" + struct.pack("<II", 10, 2) + b"\xff\x3f\0" * 2  # 16,384 × 16,384, animated
    exif = b"Exif\0\0" + tiff((0x8769, 4, 1, 8), (282, 5, 2**31, 8), (0x011A, 5, 1, 8), following=8)
    return {
        "huge PNG": png((2**31 - 1, 2**31 - 1)),
        "large PNG": png((60_000, 60_000), depth=16, color=6),
        "tall PNG": png((1, 60_000_000)),
        "PNG with texts": png((9, 9), *[text] * 200),
        "PNG with a large profile": png((9, 9), profile),
        "PNG of many frames": frames("PNG", 1_000),
        "huge GIF": b"GIF89a"
        + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x08\xff;",
        "GIF of many frames": frames("GIF", 2_000),
        "huge TIFF": tiff_of(2**31 - 1, 2**31 - 1),
        "TIFF of one strip": tiff_of(60_000, 1_000, tag279=2**31 - 1),
        "TIFF in odd bits": tiff_of(100, 100, tag258=63, tag277=60_000),
        "huge WebP": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
        "JPEG of many comments": jpeg(*[segment(0xFE, PAYLOAD * 800)] * 200),
        "JPEG with a script": jpeg(segment(0xFE, PAYLOAD)),
        "JPEG with a looping EXIF": jpeg(segment(0xE1, exif)),
        "JPEG with an incomplete profile": jpeg(segment(0xE2, b"ICC_PROFILE\0\xff\xff" + bytes(60_000))),
        "JPEG of many scans": scans(4_000),
        "JPEG that is a zip": saved("JPEG") + zipped(10_000_000),
        "GIF that is a script": b"GIF89a/*" + PAYLOAD * 50 + b"*/=1;",
        "PNG with HTML": png((9, 9), chunk(b"tEXt", b"a\0" + PAYLOAD)) + PAYLOAD,
        "slow PPM": b"P6 900 900 254\n" + bytes(2_430_000),
        "compressed BMP": bmp + bytes(2_000),
        "HTML": PAYLOAD,
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "zip": zipped(10_000_000),
        "nothing": b"",
    }


@cache
def samples() -> list[bytes]:
    """Small images that are as they should be, to be damaged."""
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF")
    return [*(saved(kind) for kind in kinds), saved("JPEG", progressive=True), frames("GIF", 3), frames("WEBP", 3)]

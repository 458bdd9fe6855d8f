"""Uploaded images, whose makers may want decoding them to take for ever."""

import re
import warnings
from dataclasses import replace
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from mlcl_cli.errors import MlclError
from mlcl_cli.images.decode import FORMATS, decode_image
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.workflows.query_features import PreparedQuery
from mlcl_cli.workflows.retriever import Query
from mlcl_cli.workflows.search_engine import SearchEngine

# Pillow reads PPM, and compressed BMP, in Python, a pixel at a time.
ACCEPTED = tuple(name for name in FORMATS if name not in ("PPM", "BMP"))
LARGE = 16_000_000  # pixels, from which on images are decoded one at a time: each takes up to a gigabyte
MAX_SCANNED = 1_000_000_000  # pixels of all scans of a JPEG: 64 megapixels in 15 scans, where most files have 10
# A marker that is not part of the compressed data before it.
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
END, SCAN = 0xD9, 0xDA


def count_pixels(data: bytes) -> int:
    """The pixels of an image in one of `ACCEPTED`.

    Raises ProblemError for anything else, and for a JPEG that takes much longer to decode than its size suggests.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(data), formats=ACCEPTED) as header:
            pixels = header.width * header.height
    except Image.DecompressionBombError:
        return LARGE  # `decode_image` refuses it
    except UnidentifiedImageError:
        raise _unusable("not an image in JPEG, PNG, WebP, GIF, TIFF or AVIF") from None
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise _unusable("damaged") from error
    if pixels * count_scans(data) > MAX_SCANNED:
        raise _unusable("it consists of too many scans")
    return pixels


def prepare_upload(engine: SearchEngine, query: Query, data: bytes) -> PreparedQuery:
    """A query with an uploaded image, as `SearchEngine.prepare` makes it of one that is decoded.

    Raises ProblemError for an image that cannot be used.
    """
    try:
        return engine.prepare(replace(query, image=decode_image(data)))
    except MlclError:
        raise
    except (OSError, ValueError) as error:
        raise _unusable(str(error)) from error
    except Exception as error:
        raise _unusable("damaged") from error


def count_scans(data: bytes) -> int:
    """How many scans a JPEG's first image has, each of which may visit every pixel; 1 for another format."""
    if not data.startswith(b"\xff\xd8"):
        return 1
    count, at = 0, 2
    while (found := MARKER.search(data, at)) and (kind := data[found.end() - 1]) != END:
        count += kind == SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return count


def _unusable(why: str) -> ProblemError:
    return ProblemError(422, f"cannot be used: {why}", where="image", remedy="Send another one")

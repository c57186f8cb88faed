"""Croissant metadata of an export (MLCommons, format 1.0): JSON-LD that search engines and loaders read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from clreplay.memory.formats.card import made_how, title
from clreplay.memory.formats.eight_bits import Rounded

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_croissant(rounded: Rounded, path: Path, shard: str, file: Path) -> None:
    """Write the metadata.

    Args:
        shard: path of the Parquet file from the metadata's.
        file: the Parquet file, whose hash is written.
    """
    path.write_text(json.dumps(_croissant(rounded, shard, file), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _croissant(rounded: Rounded, shard: str, file: Path) -> dict[str, Any]:
    pictures = rounded.pictures
    names = pictures.table()[1]
    fields = [
        _field("images", "image", "sc:ImageObject", "The picture, a PNG file.", {"column": "image"}, "bytes"),
        {
            **_field("images", "label", "sc:Integer", "Place of the class.", {"column": "label"}),
            "references": {"field": {"@id": "classes/label"}},
        },
    ]
    if pictures.scale is not None:
        what = "Pixels on the scale from 0 to 1 are code / 255 * scale + offset."
        fields += [_field("images", name, "sc:Float", what, {"column": name}) for name in ("scale", "offset")]
    classes = {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {"@type": "cr:Field", "@id": "classes/label", "name": "label", "dataType": "sc:Integer"},
            {"@type": "cr:Field", "@id": "classes/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [{"classes/label": place, "classes/name": name} for place, name in enumerate(names)],
    }
    described = [f"A memory of {title(pictures)}: images to train a classifier on in the place of the real ones."]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": "memory",
        "description": " ".join([*described, *(f"{line}." for line in made_how(pictures.info))]),
        "version": "1.0.0",
        "keywords": ["dataset condensation", "continual learning", "clreplay"],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "parquet",
                "name": "parquet",
                "contentUrl": shard,
                "contentSize": f"{file.stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
        ],
        "recordSet": [
            classes,
            {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields},
        ],
    }


def _field(
    record_set: str, name: str, kind: str, what: str, extract: dict[str, str], json_path: str | None = None
) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": "parquet"}, "extract": extract}
    if json_path:
        source["transform"] = {"jsonPath": json_path}
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": what,
        "dataType": kind,
        "source": source,
    }

"""Labeled pictures in Parquet, in the form of Hugging Face's `datasets`.

    data/train-00000-of-00005.parquet    columns `image` (bytes of a file, path), `label`, `row`

Features stand in the metadata of the schema, as that library writes and reads them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygrid.core.errors import DataError
from raygrid.core.lazy import np
from raygrid.storage.pictures import as_rgb, opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARQUET_SUFFIX = ".parquet"
ROWS_A_FILE = 10_000
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "targets", "y")
ROW_COLUMN = "row"
METADATA_KEY = b"huggingface"


@dataclass(frozen=True)
class Pictures:
    """pixels: uint8 (n, H, W, 3). labels, rows: int64 (n,), None where there is no such column."""

    pixels: NDArray[Any]
    labels: NDArray[Any] | None
    rows: NDArray[Any] | None


def features(classes: int) -> dict[str, Any]:
    """The columns in the words of `datasets`. Classes are named by their numbers."""
    names = [str(label) for label in range(classes)]
    return {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
        ROW_COLUMN: {"dtype": "int64", "_type": "Value"},
    }


def write_pictures(folder: Path, pictures: Pictures, classes: int) -> list[Path]:
    """Write pictures as PNG in Parquet files of 10,000 each; returns the files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), ("label", pa.int64()), (ROW_COLUMN, pa.int64())]
    said = json.dumps({"info": {"features": features(classes)}})
    schema = pa.schema(fields, metadata={METADATA_KEY: said})
    assert pictures.labels is not None
    assert pictures.rows is not None
    (folder / "data").mkdir()
    starts = range(0, len(pictures.pixels), ROWS_A_FILE)
    files = []
    for number, start in enumerate(starts):
        part = slice(start, start + ROWS_A_FILE)
        labels, rows = pictures.labels[part].tolist(), pictures.rows[part].tolist()
        images = [
            {"bytes": _png(pixels), "path": f"{row:06d}.png"}
            for pixels, row in zip(pictures.pixels[part], rows, strict=True)
        ]
        table = pa.table({"image": images, "label": labels, ROW_COLUMN: rows}, schema=schema)
        files.append(folder / "data" / f"train-{number:05d}-of-{len(starts):05d}{PARQUET_SUFFIX}")
        pq.write_table(table, files[-1])
    return files


def _png(pixels: NDArray[Any]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at a path, itself or in the folder or its `data`: the training part's.

    Empty if there are none. Files whose names begin with another word than `train` are left out
    where some begin with that.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == PARQUET_SUFFIX else []
    places = [path, path / "data"]
    found = [f for p in places if p.is_dir() for f in sorted(p.glob(f"*{PARQUET_SUFFIX}"))]
    return [f for f in found if f.name.startswith("train")] or found


def read_pictures(files: Sequence[Path]) -> Pictures:
    """All pictures of some files in order; raises DataError that names the file and what it has."""
    parts = [part for path in files for part in _read(path)]
    shapes = {part.pixels.shape[1:] for part in parts}
    if len(shapes) != 1:
        sizes = sorted(shapes)[:3]
        raise DataError(f"the pictures in {files[0].parent} have different sizes: {sizes}")
    return Pictures(
        np.concatenate([part.pixels for part in parts]),
        _joined([part.labels for part in parts]),
        _joined([part.rows for part in parts]),
    )


def _joined(parts: Sequence[Any]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate(parts)


def _read(path: Path) -> Iterator[Pictures]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            image, label = _columns(path, file.schema_arrow)
            names = file.schema_arrow.names
            wanted = [
                name for name in (image, label, ROW_COLUMN if ROW_COLUMN in names else None) if name
            ]
            for batch in file.iter_batches(1000, columns=wanted):
                held = batch.to_pydict()
                pixels = [_decoded(path, value) for value in held[image]]
                if len({p.shape for p in pixels}) > 1:
                    raise DataError(f"the pictures in {path} have different sizes")
                yield Pictures(
                    np.stack(pixels),
                    _whole(path, held.get(label)),
                    _whole(path, held.get(ROW_COLUMN)),
                )
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); get it again") from None


def _columns(path: Path, schema: Any) -> tuple[str, str | None]:
    """The columns of pictures and labels: by the metadata, else by their types and names."""
    import pyarrow as pa

    said = _said(schema)
    pictures = [name for name, kind in said.items() if kind == "Image"] or [
        field.name
        for field in schema
        if pa.types.is_binary(field.type)
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    if len(pictures) != 1:
        columns = ", ".join(schema.names)
        raise DataError(f"{path} has {len(pictures)} columns of pictures among {columns}, not one")
    labels = [name for name, kind in said.items() if kind == "ClassLabel"]
    named = [
        n for n in LABEL_COLUMNS if n in schema.names and pa.types.is_integer(schema.field(n).type)
    ]
    chosen = labels if len(labels) == 1 else [n for n in named if n in labels or not labels]
    return pictures[0], chosen[0] if chosen else None


def _said(schema: Any) -> dict[str, str]:
    """The kind of every column that the metadata speak of; they may hold anything."""
    try:
        found = json.loads((schema.metadata or {})[METADATA_KEY])["info"]["features"]
        return {str(k): str(v["_type"]) for k, v in found.items() if k in schema.names}
    except (LookupError, ValueError, TypeError, AttributeError):
        return {}


def _decoded(path: Path, value: Any) -> NDArray[Any]:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{path} names pictures by their paths alone; their bytes must be in it")
    with opened(path, io.BytesIO(content)) as image:
        return np.asarray(as_rgb(image, path))


def _whole(path: Path, values: list[Any] | None) -> Any:
    if values is None:
        return None
    if not all(isinstance(value, int) for value in values):
        raise DataError(f"{path} has rows without a label")
    return np.array(values, dtype=np.int64)

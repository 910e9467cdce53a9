"""Official images as the JPEG files of quality 75 that the screening results are of.

    raygrid download cifar10
    python experiments/benchmarks/jpeg_files.py --to jpeg
    python experiments/full_grid.py --scale screen --data jpeg

An image of a class is `train/CLASS/NNNN.jpg`, counted in the official order of its class, as Pillow
writes it: baseline, colors at half the resolution, the standard tables.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from PIL import Image

import raygrid as rg
from raygrid.core.errors import DataError, SpecError

QUALITY = 75


def write(images: rg.Images, names: tuple[str, ...], folder: Path) -> None:
    """Every image as a file of its class; `names` are those of the classes, by label."""
    seen: Counter[int] = Counter()
    for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True):
        path = folder / names[label] / f"{seen[label]:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, "JPEG", quality=QUALITY)
        seen[label] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="official images as JPEG files of quality 75")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", default="data", help="folder of the official files (data)")
    parser.add_argument("--to", type=Path, default=Path("jpeg"), help="folder to make (jpeg)")
    args = parser.parse_args()
    place = args.to / args.dataset
    if place.exists():
        parser.error(f"{place} is there already: name another folder by --to")
    try:
        split = rg.dataset(args.dataset, args.data)
    except (DataError, SpecError) as error:
        parser.error(str(error))
    names = rg.DATASETS.make(args.dataset).class_names
    write(split.train, names, place / "train")
    write(split.test, names, place / "test")
    print(f"{len(split.train):,} and {len(split.test):,} images in {place}")


if __name__ == "__main__":
    main()

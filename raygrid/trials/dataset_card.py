"""The card of an exported dataset: a README with a head that Hugging Face's hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raygrid.storage.parquet import features


def dataset_card(manifest: Mapping[str, Any], files: int) -> str:
    """The text of `README.md`: YAML head (features, splits, files) and what a person has to know.

    The head has what the hub needs to describe the dataset in Croissant too.
    """
    import yaml

    head = {
        "pretty_name": manifest["spec"],
        "license": "other",
        "task_categories": ["image-classification"],
        "tags": ["availability-poisoning", "unlearnable-examples", "raygrid"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
        ],
        "dataset_info": {
            "features": _listed(manifest["classes"]),
            "splits": [{"name": "train", "num_examples": manifest["images"]}],
        },
    }
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    size = json.dumps(manifest.get("size", {}), sort_keys=True)
    marks = "".join(f"\n- {mark}" for mark in manifest.get("marks", ()))
    return f"""---
{text}---

# {manifest["spec"]}

A training set under an availability attack, made by raygrid. Models that are trained on it are
meant to fail on clean images; it is for research on such attacks and on defenses.

- poisoned images: {manifest["poisoned"]:,} of {manifest["images"]:,}, in {files} Parquet files
- sizes of the change by norm, images in [0, 1]: `{size}`
- key of the poison in raygrid: `{manifest["key"]}`
- checksum of pixels and labels: `{manifest["checksum"]}`{marks}

`row` is the row of each image in the clean training set. The license is that of the clean images.

```bash
raygrid inspect .                       # checks the files against manifest.json
raygrid poison {_words(manifest)} --from .    # has raygrid use them as if it had made them
```
"""


def _listed(classes: int) -> list[dict[str, Any]]:
    """Features as the hub lists them."""
    names = features(classes)["label"]["names"]
    return [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": dict(enumerate(names))}}},
        {"name": "row", "dtype": "int64"},
    ]


def _words(manifest: Mapping[str, Any]) -> str:
    """Dataset, attack and seed as words of a command line."""
    import shlex

    from raygrid.core.spec import split_outside

    dataset, attack, seed = split_outside(str(manifest["spec"]), "/")
    return f"{shlex.quote(dataset)} {shlex.quote(attack)} --seed {seed}"

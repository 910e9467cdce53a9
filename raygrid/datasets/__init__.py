"""Datasets: one file each. Importing this package registers all of them."""

from raygrid.datasets import photo_digits as photo_digits
from raygrid.datasets.base import DATASETS as DATASETS

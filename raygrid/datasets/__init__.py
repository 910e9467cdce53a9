"""Datasets: one file each. Importing this package registers all of them.

A dataset reads official files, or a folder of classes, into `Images`. The rooms `defenses`,
`literature`, `trials`, `reports`, `reproduce`, `api` and `cli` import it. Start with `base.py`,
then `cifar10.py`; readers that several share lie in `common/`.
"""

from raygrid.datasets import cifar10 as cifar10
from raygrid.datasets import cifar100 as cifar100
from raygrid.datasets import folder as folder
from raygrid.datasets import halves as halves
from raygrid.datasets import imagenet100 as imagenet100
from raygrid.datasets import miniimagenet as miniimagenet
from raygrid.datasets import photo_digits as photo_digits
from raygrid.datasets import svhn as svhn
from raygrid.datasets import tinyimagenet as tinyimagenet
from raygrid.datasets.base import DATASETS as DATASETS

"""Architectures: one file a family. Importing this package registers all of them."""

from raygrid.architectures import resnet as resnet
from raygrid.architectures import small_cnn as small_cnn
from raygrid.architectures.base import ARCHITECTURES as ARCHITECTURES

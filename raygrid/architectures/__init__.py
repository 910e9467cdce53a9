"""Architectures: one file a family. Importing this package registers all of them.

It imports `core` alone; everything from `nn` up may import it. torchvision and timm are imported
where a network is built: they take seconds, and a plan needs neither. Start with `base.py` (what a
victim's network has to offer), then `resnet.py`.
"""

from raygrid.architectures import airbench as airbench
from raygrid.architectures import cait as cait
from raygrid.architectures import densenet as densenet
from raygrid.architectures import dla as dla
from raygrid.architectures import dpn as dpn
from raygrid.architectures import efficientnet as efficientnet
from raygrid.architectures import googlenet as googlenet
from raygrid.architectures import lenet as lenet
from raygrid.architectures import linear as linear
from raygrid.architectures import mobilenet as mobilenet
from raygrid.architectures import originals as originals
from raygrid.architectures import pnasnet as pnasnet
from raygrid.architectures import preact_resnet as preact_resnet
from raygrid.architectures import regnet as regnet
from raygrid.architectures import resnet as resnet
from raygrid.architectures import resnext as resnext
from raygrid.architectures import senet as senet
from raygrid.architectures import shufflenet as shufflenet
from raygrid.architectures import small_airbench as small_airbench
from raygrid.architectures import small_cnn as small_cnn
from raygrid.architectures import small_resnet as small_resnet
from raygrid.architectures import timm as timm
from raygrid.architectures import vgg as vgg
from raygrid.architectures import vit as vit
from raygrid.architectures.base import ARCHITECTURES as ARCHITECTURES

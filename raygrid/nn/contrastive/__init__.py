"""Contrastive learning below learners and attacks: heads and losses over two views.

Learners train these frameworks as victims, contrastive attacks train them as surrogates. lightly
is imported where a head or loss is built: it takes seconds, and a plan does not need it. Start
with `base.py`, then `pairs.py`.
"""

from raygrid.nn.contrastive.base import Framework as Framework
from raygrid.nn.contrastive.base import with_mlp as with_mlp
from raygrid.nn.contrastive.byol import ByolLoss as ByolLoss
from raygrid.nn.contrastive.byol import byol_heads as byol_heads
from raygrid.nn.contrastive.moco import MocoLoss as MocoLoss
from raygrid.nn.contrastive.pairs import AlignUniform as AlignUniform
from raygrid.nn.contrastive.pairs import SimClrLoss as SimClrLoss
from raygrid.nn.contrastive.pairs import SupClLoss as SupClLoss
from raygrid.nn.contrastive.pseudo_labels import ClusterHeads as ClusterHeads
from raygrid.nn.contrastive.pseudo_labels import Clustering as Clustering
from raygrid.nn.contrastive.simsiam import SimSiamLoss as SimSiamLoss
from raygrid.nn.contrastive.simsiam import simsiam_heads as simsiam_heads

"""Everything that is made once and shared: datasets, networks, poisons, purified sets.

An artifact knows its key and what it needs before it exists; `make` turns the content of its needs
into its own. Executors only walk this graph, they do not know the kinds.
"""

from raygrid.artifacts.base import Artifact as Artifact
from raygrid.artifacts.base import Bench as Bench
from raygrid.artifacts.dataset import DatasetArtifact as DatasetArtifact
from raygrid.artifacts.dataset import World as World
from raygrid.artifacts.dataset import hold_out as hold_out
from raygrid.artifacts.denoiser import DenoiserArtifact as DenoiserArtifact
from raygrid.artifacts.poison import PoisonArtifact as PoisonArtifact
from raygrid.artifacts.poison import mix as mix
from raygrid.artifacts.poison import poison_bundle as poison_bundle
from raygrid.artifacts.poison import poison_of as poison_of
from raygrid.artifacts.purified import PurifiedArtifact as PurifiedArtifact
from raygrid.artifacts.purified import check_purified as check_purified
from raygrid.artifacts.purified import purified_of as purified_of
from raygrid.artifacts.purified import purify as purify
from raygrid.artifacts.study import StudyArtifact as StudyArtifact
from raygrid.artifacts.surrogate import Pretraining as Pretraining
from raygrid.artifacts.surrogate import SurrogateArtifact as SurrogateArtifact

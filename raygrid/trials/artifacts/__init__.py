"""Everything that is made once and shared: datasets, networks, poisons, purified sets.

An artifact knows its key and what it needs before it exists; `make` turns the content of its needs
into its own. Executors only walk this graph, they do not know the kinds. Trials, the engine and
the reports import it. Start with `base.py`, then `poison.py`.
"""

from raygrid.trials.artifacts.base import Artifact as Artifact
from raygrid.trials.artifacts.base import BuildContext as BuildContext
from raygrid.trials.artifacts.bridge import BridgeArtifact as BridgeArtifact
from raygrid.trials.artifacts.dataset import DatasetArtifact as DatasetArtifact
from raygrid.trials.artifacts.dataset import World as World
from raygrid.trials.artifacts.dataset import hold_out as hold_out
from raygrid.trials.artifacts.denoiser import DenoiserArtifact as DenoiserArtifact
from raygrid.trials.artifacts.poison import PoisonArtifact as PoisonArtifact
from raygrid.trials.artifacts.poison import mix as mix
from raygrid.trials.artifacts.poison import poison_bundle as poison_bundle
from raygrid.trials.artifacts.poison import poison_of as poison_of
from raygrid.trials.artifacts.purified import PurifiedArtifact as PurifiedArtifact
from raygrid.trials.artifacts.purified import check_purified as check_purified
from raygrid.trials.artifacts.purified import purified_of as purified_of
from raygrid.trials.artifacts.purified import purify as purify
from raygrid.trials.artifacts.study import StudyArtifact as StudyArtifact
from raygrid.trials.artifacts.surrogate import GivenPretraining as GivenPretraining
from raygrid.trials.artifacts.surrogate import Pretraining as Pretraining
from raygrid.trials.artifacts.surrogate import SurrogateArtifact as SurrogateArtifact

"""Questions to finished trials, answered from what these left: nothing here trains a victim."""

from raygrid.analysis.changes import draw_changes as draw_changes
from raygrid.analysis.classes import by_class as by_class
from raygrid.analysis.comparing import compare as compare
from raygrid.analysis.explaining import grad_cam as grad_cam
from raygrid.analysis.explaining import shapley as shapley
from raygrid.analysis.fidelity import change as change
from raygrid.analysis.fidelity import fidelity_of_poison as fidelity_of_poison
from raygrid.analysis.fidelity import fidelity_of_purified as fidelity_of_purified
from raygrid.analysis.fidelity import norms_of_disentangled as norms_of_disentangled
from raygrid.analysis.joined import with_answers as with_answers
from raygrid.analysis.pictures import draw_maps as draw_maps
from raygrid.analysis.pictures import draw_tsne_of_changes as draw_tsne_of_changes
from raygrid.analysis.pictures import draw_tsne_of_features as draw_tsne_of_features
from raygrid.analysis.questions import accuracy_on_sets as accuracy_on_sets
from raygrid.analysis.questions import robustness as robustness
from raygrid.analysis.questions import transferability as transferability
from raygrid.analysis.records import Records as Records
from raygrid.analysis.records import Victim as Victim
from raygrid.analysis.summary import costs as costs
from raygrid.analysis.summary import over_seeds as over_seeds

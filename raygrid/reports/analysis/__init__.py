"""Questions to finished trials, answered from what these left: nothing here trains a victim."""

from raygrid.reports.analysis.changes import draw_changes as draw_changes
from raygrid.reports.analysis.classes import by_class as by_class
from raygrid.reports.analysis.comparing import compare as compare
from raygrid.reports.analysis.explaining import grad_cam as grad_cam
from raygrid.reports.analysis.explaining import shapley as shapley
from raygrid.reports.analysis.fidelity import change as change
from raygrid.reports.analysis.fidelity import fidelity_of_poison as fidelity_of_poison
from raygrid.reports.analysis.fidelity import fidelity_of_purified as fidelity_of_purified
from raygrid.reports.analysis.fidelity import norms_of_disentangled as norms_of_disentangled
from raygrid.reports.analysis.joined import with_answers as with_answers
from raygrid.reports.analysis.pictures import draw_maps as draw_maps
from raygrid.reports.analysis.pictures import draw_tsne_of_changes as draw_tsne_of_changes
from raygrid.reports.analysis.pictures import draw_tsne_of_features as draw_tsne_of_features
from raygrid.reports.analysis.questions import accuracy_on_sets as accuracy_on_sets
from raygrid.reports.analysis.questions import robustness as robustness
from raygrid.reports.analysis.questions import transferability as transferability
from raygrid.reports.analysis.records import Records as Records
from raygrid.reports.analysis.records import Victim as Victim
from raygrid.reports.analysis.summary import costs as costs
from raygrid.reports.analysis.summary import over_seeds as over_seeds

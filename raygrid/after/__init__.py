"""The commands `raygrid evaluate` and `raygrid figure`: questions to trials that are finished."""

from raygrid.after.drawing import add_figure as add_figure
from raygrid.after.drawing import figure as figure
from raygrid.after.evaluating import add_evaluate as add_evaluate
from raygrid.after.evaluating import evaluate as evaluate

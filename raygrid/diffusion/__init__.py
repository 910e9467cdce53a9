"""Diffusion below defenses: noise in and out of images, and networks that predict it."""

from raygrid.diffusion.checkpoints import content as content
from raygrid.diffusion.checkpoints import fault as fault
from raygrid.diffusion.checkpoints import loaded as loaded
from raygrid.diffusion.denoisers import EXTRA as EXTRA
from raygrid.diffusion.denoisers import SIZES as SIZES
from raygrid.diffusion.denoisers import DenoiserPlan as DenoiserPlan
from raygrid.diffusion.denoisers import Prior as Prior
from raygrid.diffusion.denoisers import fitted as fitted
from raygrid.diffusion.denoisers import of_unet as of_unet
from raygrid.diffusion.denoisers import predictor as predictor
from raygrid.diffusion.denoisers import unet as unet
from raygrid.diffusion.files import SCORE_SDE as SCORE_SDE
from raygrid.diffusion.files import is_file as is_file
from raygrid.diffusion.files import of_network as of_network
from raygrid.diffusion.process import SOLVERS as SOLVERS
from raygrid.diffusion.process import STEPS as STEPS
from raygrid.diffusion.process import Predictor as Predictor
from raygrid.diffusion.process import diffuse as diffuse
from raygrid.diffusion.process import noise_error as noise_error

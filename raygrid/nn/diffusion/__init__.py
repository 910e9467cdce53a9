"""Diffusion below defenses: noise in and out of images, and networks that predict it.

The defenses AVATAR, ECLIPSE and BridgePure and the artifacts of their networks import it. Start
with `process.py` (the mathematics), then `denoisers.py` (a predictor fitted here), `checkpoints.py`
(one that is loaded) and `bridge.py` (from images to their partners in pairs).
"""

from raygrid.nn.diffusion.bridge import BridgePlan as BridgePlan
from raygrid.nn.diffusion.bridge import BridgeSampler as BridgeSampler
from raygrid.nn.diffusion.bridge import bridge_of as bridge_of
from raygrid.nn.diffusion.bridge import fitted_bridge as fitted_bridge
from raygrid.nn.diffusion.checkpoints import content as content
from raygrid.nn.diffusion.checkpoints import fault as fault
from raygrid.nn.diffusion.checkpoints import loaded as loaded
from raygrid.nn.diffusion.denoisers import DENOISER_PRECISION as DENOISER_PRECISION
from raygrid.nn.diffusion.denoisers import DENOISER_SIZES as DENOISER_SIZES
from raygrid.nn.diffusion.denoisers import DIFFUSERS_EXTRA as DIFFUSERS_EXTRA
from raygrid.nn.diffusion.denoisers import DenoiserPlan as DenoiserPlan
from raygrid.nn.diffusion.denoisers import Prior as Prior
from raygrid.nn.diffusion.denoisers import fitted as fitted
from raygrid.nn.diffusion.denoisers import of_unet as of_unet
from raygrid.nn.diffusion.denoisers import predictor as predictor
from raygrid.nn.diffusion.denoisers import unet as unet
from raygrid.nn.diffusion.paths import is_file as is_file
from raygrid.nn.diffusion.process import NOISE_STEPS as NOISE_STEPS
from raygrid.nn.diffusion.process import SCHEDULE_STEPS as SCHEDULE_STEPS
from raygrid.nn.diffusion.process import SOLVERS as SOLVERS
from raygrid.nn.diffusion.process import NoiseSchedule as NoiseSchedule
from raygrid.nn.diffusion.process import Predictor as Predictor
from raygrid.nn.diffusion.process import diffuse as diffuse
from raygrid.nn.diffusion.process import noise_error as noise_error
from raygrid.nn.diffusion.process import solver_of as solver_of

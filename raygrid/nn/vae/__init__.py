"""D-VAE below attacks and defenses: networks that tell a perturbation from the image under it.

Defenses import it to take the perturbation off, attacks to put it on other images. Start
with `autoencoders.py` (the network and its losses), then `fitting.py`.
"""

from raygrid.nn.vae.autoencoders import LatentTable as LatentTable
from raygrid.nn.vae.autoencoders import Parts as Parts
from raygrid.nn.vae.autoencoders import VaeSize as VaeSize
from raygrid.nn.vae.autoencoders import misfit as misfit
from raygrid.nn.vae.autoencoders import relative_cost as relative_cost
from raygrid.nn.vae.fitting import VaeFit as VaeFit
from raygrid.nn.vae.fitting import cleaned as cleaned
from raygrid.nn.vae.fitting import fit as fit
from raygrid.nn.vae.fitting import in_chunks as in_chunks
from raygrid.nn.vae.fitting import marked as marked
from raygrid.nn.vae.fitting import perturbation as perturbation
from raygrid.nn.vae.fitting import reconstructed as reconstructed
from raygrid.nn.vae.fitting import require_fit as require_fit

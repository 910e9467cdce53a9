"""D-VAE below attacks and defenses: networks that tell a perturbation from the image under it.

Defenses take the perturbation off, attacks put it on other images.
"""

from raygrid.disentangling.autoencoders import AutoEncoder as AutoEncoder
from raygrid.disentangling.autoencoders import Parts as Parts
from raygrid.disentangling.autoencoders import Plan as Plan
from raygrid.disentangling.autoencoders import Table as Table
from raygrid.disentangling.autoencoders import misfit as misfit
from raygrid.disentangling.autoencoders import relative_cost as relative_cost
from raygrid.disentangling.fitting import Fit as Fit
from raygrid.disentangling.fitting import cleaned as cleaned
from raygrid.disentangling.fitting import fit as fit
from raygrid.disentangling.fitting import marked as marked
from raygrid.disentangling.fitting import perturbation as perturbation
from raygrid.disentangling.fitting import reconstructed as reconstructed
from raygrid.disentangling.fitting import require_fit as require_fit
from raygrid.disentangling.fitting import through as through

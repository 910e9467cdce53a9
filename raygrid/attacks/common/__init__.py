"""What several attacks share: gradient steps, noise made in rounds, surrogates, polytopes.

Attacks import it, and whoever makes, judges or is asked about surrogates. An attack's own file is
one room up.
"""

"""What several attacks share: gradient steps, noise made in rounds, surrogates, polytopes.

Attacks import it, nobody else does. An attack's own file is one room up.
"""

"""What finished trials say: `tables/`, `figures/`, and `analysis/`, which asks kept outputs again.

The command line and `reproduce` import it. Start with `tables/kinds.py`.
"""

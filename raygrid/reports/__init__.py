"""What finished trials say: `tables/`, `figures/`, and `analysis/`, which asks kept outputs again.

The rooms `reproduce`, `api` and `cli` import it. Start with `tables/kinds.py`.
"""

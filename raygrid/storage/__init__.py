"""Where results and artifacts lie: a folder, or an object store with a mirror of it.

Trials, the engine and everything above import it; it imports `core` alone. Start with `store.py`;
`claims.py` keeps two drivers from one trial, `checkpoints.py` holds what a job saved on its way.
"""

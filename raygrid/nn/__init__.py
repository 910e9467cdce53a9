"""Networks that learn, and what training needs: the one loop, recipes, PGD, augmentation, losses.

Methods (attacks, defenses, learners) and protocols import it; it knows no method by name. Start
with `trainer.py`, the one training loop, then `recipes.py`.
"""

"""Networks that learn, and what training needs: the one loop, recipes, PGD, augmentation, losses.

The rooms `protocols`, `attacks`, `defenses`, `learners`, `trials`, `engine`, `reports` and `cli`
import it; it knows no attack, defense, learner or protocol. Start with `trainer.py`, the one
training loop, then `recipes.py`.
"""

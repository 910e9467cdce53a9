"""What several learners share: two views, frozen extractors, kNN and the linear probe.

Learners import it, and who judges a trained encoder. A learner's own file is one room up.
"""

"""Contrastive learning below learners and attacks: heads and losses over two views.

Learners train these frameworks as victims, contrastive attacks train them as surrogates. Start
with `base.py`, then `pairs.py`. Frameworks are networks and need torch as they load, so methods
import them where they build them; lightly, which takes seconds, where a head or loss is built.
"""

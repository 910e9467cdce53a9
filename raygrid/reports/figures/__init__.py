"""Figures from stored rows: peak against final, speed of learning, partial poisoning, curves.

Curves and points come from the frame of `tables/frame.py`, pictures and maps from images; each is a
matplotlib figure with its caption below, and none mixes datasets, protocols or victims. A point is
an attack, averaged over seeds. The rooms `reproduce`, `api` and `cli` import it. Start with
`canvas.py` (what all figures share) and `write.py` (which figures a run gets).
"""

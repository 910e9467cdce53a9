"""Figures from stored rows: peak against final, speed of learning, partial poisoning, curves.

Every function takes the frame of `tables/frame.py` and gives a matplotlib figure with its caption
below; none mixes datasets, protocols or victims. A point is an attack, averaged over seeds. The
command line and `reproduce` import it. Start with `canvas.py` (what all figures share) and
`write.py` (which figures a run gets).
"""

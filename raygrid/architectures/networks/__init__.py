"""The layers of networks, and what every network is made of.

These files need torch as they load, so architectures and whoever else uses them import them inside
of functions; that way a plan needs no torch. Start with `network.py`.
"""

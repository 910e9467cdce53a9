"""What several defenses share: filter kernels.

Defenses import it, nobody else does. A defense's own file is one room up.
"""

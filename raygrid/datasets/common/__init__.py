"""Reading what several datasets share: class folders, archives, CIFAR's pickles, decoding.

Datasets import it. A dataset's own file is one room up.
"""

"""The networks themselves. They import torch, so methods import them where they build them."""

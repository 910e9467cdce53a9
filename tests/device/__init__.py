"""GPUs without a GPU: CUDA whose C calls are replaced, and a pretend accelerator."""

"""What several defenses share: filter kernels. A defense's own file is one room up."""

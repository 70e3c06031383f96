"""Diffusion models, one file per paper: forward noising, learnt denoising, samplers, guidance."""

"""Generative adversarial networks, one file per paper."""

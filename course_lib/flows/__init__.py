"""Normalizing flows, one file per paper."""

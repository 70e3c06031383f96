"""Autoencoders and variational autoencoders, one file per paper."""

"""Models that factor a joint into conditionals, one file per paper."""

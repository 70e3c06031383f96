"""Blocks that slides draw as a box; a block moves here with its third user of identical meaning."""

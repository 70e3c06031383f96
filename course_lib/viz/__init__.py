"""Figures (functions that return a Figure) and widgets (sliders around such functions)."""

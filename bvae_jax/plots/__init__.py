"""Figures from arrays: the only importers of matplotlib."""

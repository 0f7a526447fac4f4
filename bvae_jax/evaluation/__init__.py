"""Scores and figures of a run, kept in its directory."""

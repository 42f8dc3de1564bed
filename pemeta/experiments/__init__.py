"""Grids of runs: their configurations, searches, schedules, stages, processes and records."""

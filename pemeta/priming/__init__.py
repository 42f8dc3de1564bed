"""Priming: the learner and its inner loop, one file for each algorithm, and the outer loop."""

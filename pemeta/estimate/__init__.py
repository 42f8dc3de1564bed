"""Estimates of what a grid takes, without running it: parameters, memory, operations and time."""

from pemeta.estimate.grid import GridEstimate as GridEstimate
from pemeta.estimate.grid import estimate_grid as estimate_grid
from pemeta.estimate.text import to_json as to_json
from pemeta.estimate.text import to_text as to_text

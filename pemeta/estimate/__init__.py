"""What a run will take, told before it is run: parameters, memory, operations and time."""

from pemeta.estimate.grid import GridEstimate as GridEstimate
from pemeta.estimate.grid import estimate_grid as estimate_grid
from pemeta.estimate.text import to_json as to_json
from pemeta.estimate.text import to_text as to_text

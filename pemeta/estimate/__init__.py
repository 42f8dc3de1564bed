"""What a run will take, told before it is run: parameters, memory, operations and time."""

from pemeta.estimate.grid import RunEstimate as RunEstimate
from pemeta.estimate.grid import estimate_run as estimate_run
from pemeta.estimate.words import in_words as in_words
from pemeta.estimate.words import to_json as to_json

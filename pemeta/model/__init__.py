"""A backbone with PE methods and heads as one model, the partition of its parameters, and its files."""

from pemeta.model.partition import Partition as Partition
from pemeta.model.pe_model import PEModel as PEModel

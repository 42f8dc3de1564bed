"""Models of a backbone, PE methods and heads; the partition of their parameters; and their files."""

from pemeta.model.partition import Partition as Partition
from pemeta.model.pe_model import PEModel as PEModel
from pemeta.model.task_files import Prompting as Prompting

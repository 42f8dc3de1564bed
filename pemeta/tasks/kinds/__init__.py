"""Kinds of task, one file each."""

from pemeta.tasks.kinds.base import Collection as Collection
from pemeta.tasks.kinds.base import Measured as Measured
from pemeta.tasks.kinds.base import TaskKind as TaskKind
from pemeta.tasks.kinds.sequence_classification import SequenceClassificationTasks as SequenceClassificationTasks
from pemeta.tasks.kinds.token_classification import TokenClassificationTasks as TokenClassificationTasks

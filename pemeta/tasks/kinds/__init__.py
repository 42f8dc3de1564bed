"""Kinds of task, one file each."""

from pemeta.tasks.kinds.base import Collection as Collection
from pemeta.tasks.kinds.base import Measured as Measured
from pemeta.tasks.kinds.base import TaskKind as TaskKind
from pemeta.tasks.kinds.base import Tested as Tested
from pemeta.tasks.kinds.base import kinds as kinds
from pemeta.tasks.kinds.completion import CompletionTasks as CompletionTasks
from pemeta.tasks.kinds.language_model import LanguageModelTasks as LanguageModelTasks
from pemeta.tasks.kinds.masked_language_model import MaskedLanguageModelTasks as MaskedLanguageModelTasks
from pemeta.tasks.kinds.sequence_classification import SequenceClassificationTasks as SequenceClassificationTasks
from pemeta.tasks.kinds.token_classification import TokenClassificationTasks as TokenClassificationTasks

"""Kinds of task, one file each."""

from pemeta.tasks.kinds.base import Collection as Collection
from pemeta.tasks.kinds.base import TaskKind as TaskKind

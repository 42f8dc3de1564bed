"""Metrics, one file each, and the scores of each kind of task."""

from pemeta.data.metrics.base import Metric as Metric
from pemeta.data.metrics.base import TaskScores as TaskScores
from pemeta.data.metrics.classes import ClassScores as ClassScores
from pemeta.data.metrics.classes import class_scores as class_scores
from pemeta.data.metrics.entities import SCORINGS as SCORINGS
from pemeta.data.metrics.entities import EntityCounts as EntityCounts
from pemeta.data.metrics.entities import EntityF1 as EntityF1
from pemeta.data.metrics.entities import EntityPrecision as EntityPrecision
from pemeta.data.metrics.entities import EntityRecall as EntityRecall
from pemeta.data.metrics.entities import Scores as Scores
from pemeta.data.metrics.entities import Scoring as Scoring
from pemeta.data.metrics.entities import entity_counts as entity_counts
from pemeta.data.metrics.entities import entity_scores as entity_scores
from pemeta.data.metrics.language_model import LanguageModelScores as LanguageModelScores
from pemeta.data.metrics.language_model import language_model_scores as language_model_scores

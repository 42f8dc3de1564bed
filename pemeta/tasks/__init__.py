"""Tasks with their examples, and the episodes that priming draws from them."""

from pemeta.tasks.episodes import Episode as Episode
from pemeta.tasks.episodes import EpisodeSampler as EpisodeSampler
from pemeta.tasks.task import Task as Task

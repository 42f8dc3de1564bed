"""What happens beside training: one concern a file, each a callback of the training loop.

Trackers are registered by being imported here.
"""

from pemeta.training.callbacks.accelerate_trackers import MLflow as MLflow
from pemeta.training.callbacks.accelerate_trackers import TensorBoard as TensorBoard
from pemeta.training.callbacks.accelerate_trackers import Trackio as Trackio
from pemeta.training.callbacks.accelerate_trackers import WeightsAndBiases as WeightsAndBiases
from pemeta.training.callbacks.base import Callback as Callback
from pemeta.training.callbacks.base import StepReport as StepReport
from pemeta.training.callbacks.base import TrainingState as TrainingState
from pemeta.training.callbacks.base import Validation as Validation
from pemeta.training.callbacks.checkpointer import Checkpointer as Checkpointer
from pemeta.training.callbacks.early_stopping import EarlyStopping as EarlyStopping
from pemeta.training.callbacks.json_log import JsonLog as JsonLog
from pemeta.training.callbacks.progress import ProgressBar as ProgressBar
from pemeta.training.callbacks.tracker import TRACKERS as TRACKERS
from pemeta.training.callbacks.tracker import Tracker as Tracker

"""Training by gradient descent: the loop, its callbacks, the optimiser, checkpoints, fine-tuning and evaluation."""

from pemeta.training.evaluation import evaluate as evaluate
from pemeta.training.evaluation import predict as predict
from pemeta.training.finetuning import FineTuningHistory as FineTuningHistory
from pemeta.training.finetuning import finetune as finetune
from pemeta.training.finetuning_settings import FineTuning as FineTuning
from pemeta.training.pretraining import TinyTransformer as TinyTransformer
from pemeta.training.pretraining import pretrain as pretrain

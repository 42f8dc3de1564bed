"""Training by gradient descent: the loop, its callbacks, the optimiser, checkpoints, fine-tuning and evaluation."""

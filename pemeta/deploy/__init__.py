"""What a fine-tuned task is used with: serving, predictions, export, files of PEFT, the Trainer of transformers."""

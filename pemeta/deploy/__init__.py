"""Using fine-tuned tasks: serving, predictions, export, PEFT's file format, and transformers' Trainer."""

from pemeta.deploy.export import to_transformers as to_transformers
from pemeta.deploy.hf_trainer import TaskModel as TaskModel
from pemeta.deploy.peft_files import load_peft as load_peft
from pemeta.deploy.peft_files import save_peft as save_peft
from pemeta.deploy.serving import Server as Server
from pemeta.deploy.vllm import vllm_refusals as vllm_refusals

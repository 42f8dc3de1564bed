"""Pretrained Transformers: loading them and their tokenizers, finding their parts, running some of their layers."""

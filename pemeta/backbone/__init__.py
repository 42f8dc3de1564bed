"""Pretrained Transformers: loading them and their tokenizers, finding their parts, running some of their layers."""

from pemeta.backbone.tokenizers import tokenizer_digest as tokenizer_digest

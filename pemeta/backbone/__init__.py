"""Pretrained Transformers: loading them and their tokenizers, locating their parts, skipping some of their layers."""

from pemeta.backbone.tokenizers import tokenizer_digest as tokenizer_digest

"""Parameter-efficient fine-tuning methods: one file each, registered by this import."""

from pemeta.methods.adapter import Adapter
from pemeta.methods.base import PEMethod
from pemeta.methods.full import Full
from pemeta.methods.head_only import HeadOnly

__all__ = ["Adapter", "Full", "HeadOnly", "PEMethod"]

"""Parameter-efficient fine-tuning methods: one file each, registered by this import."""

from pemeta.methods.adapter import Adapter as Adapter
from pemeta.methods.base import PEMethod as PEMethod
from pemeta.methods.bitfit import BitFit as BitFit
from pemeta.methods.compose import Compose as Compose
from pemeta.methods.full import Full as Full
from pemeta.methods.head_only import HeadOnly as HeadOnly
from pemeta.methods.ia3 import IA3 as IA3
from pemeta.methods.layer_norm import LayerNormTuning as LayerNormTuning
from pemeta.methods.lora import LoRA as LoRA
from pemeta.methods.peft_bridge import Peft as Peft
from pemeta.methods.prefix import Prefix as Prefix
from pemeta.methods.prompt import Prompt as Prompt

"""One architecture of the zoo, and how its backbone and a batch for it are made."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers as t
from torch import Tensor

from pemeta.utils.hub import quiet

Kind = Literal["tokens", "image", "masked image", "video", "mel", "spectrogram", "wave"]


@dataclass(frozen=True)
class Row:
    """An architecture: a class of transformers, and the fields of a tiny configuration of it.

    Attributes:
        where: folder of the class in ``transformers.models``; with a dot and the file's name where that is another.
        model: name of the class, which need not be one that transformers exports.
        fields: fields of the configuration.
        kind: what its batches hold.
        padded: whether the second sentence has padding.
    """

    where: str
    model: str
    fields: dict[str, Any]
    kind: Kind = "tokens"
    padded: bool = True

    @property
    def model_class(self) -> type[t.PreTrainedModel] | None:
        """The class; None if the installed version of transformers lacks it."""
        folder, _, file = self.where.partition(".")
        try:
            module = importlib.import_module(f"transformers.models.{folder}.modeling_{file or folder}")
        except ModuleNotFoundError:
            return None
        found: type[t.PreTrainedModel] | None = getattr(module, self.model, None)
        return found

    def backbone(self, attention: str = "eager") -> t.PreTrainedModel:
        """A new backbone in float64 and evaluation mode; the same values each time."""
        model_class = self.model_class
        assert model_class is not None, self.model
        with torch.random.fork_rng(), quiet():
            torch.manual_seed(0)
            config = model_class.config_class(**self.fields, attn_implementation=attention)
            config._experts_implementation = "eager"  # which has a second derivative
            pooled = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
            model = model_class(config, **({"add_pooling_layer": False} if pooled else {}))
            with torch.no_grad():  # initial values are so small, or zero, that little would show
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model.requires_grad_().double().eval()  # Whisper freezes its table of positions

    def inputs(self, seed: int = 0) -> dict[str, Tensor]:
        """Two sequences of tokens, the second with padding at its end; two images; or two recordings."""
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).double()

        match self.kind:
            case "image":
                return {"pixel_values": noise(2, 3, 8, 8)}
            case "masked image":  # by noise of its own, which decides what it masks
                return {"pixel_values": noise(2, 3, 8, 8), "noise": torch.rand(2, 16, generator=generator).double()}
            case "video":
                return {"pixel_values": noise(2, 2, 3, 8, 8)}
            case "mel":
                return {"input_features": noise(2, 4, 12)}
            case "spectrogram":
                return {"input_values": noise(2, 6, 4)}
            case "wave":
                mask = torch.ones(2, 24, dtype=torch.long)
                mask[1, 16:] = 0
                return {"input_values": noise(2, 24) * mask, "attention_mask": mask}
        ids = torch.randint(4, 29, (2, 6), generator=generator)
        mask = torch.ones_like(ids)
        if self.padded:
            ids[1, 4:], mask[1, 4:] = self.fields.get("pad_token_id", 0), 0
        return {"input_ids": ids, "attention_mask": mask}

"""Any Hugging Face encoder checkpoint as a model: BERT, RoBERTa, DistilBERT, ModernBERT, MiniLM …

Besides the model, other plugins may use `find_checkpoint`, `Checkpoint`, `DEFAULT_CHECKPOINT` and `sentence_vectors`.
Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import zoo
from zoo_bert.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, find_checkpoint

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["BERT", "DEFAULT_CHECKPOINT", "Checkpoint", "find_checkpoint", "sentence_vectors", "zoo_models"]


@dataclass
class BERT(zoo.TorchModel):
    """A pretrained encoder, fine-tuned: pooled output, dropout, a linear layer.

    What is frozen is in eval mode in training as well, without dropout; of a frozen encoder the engine keeps the pooled
    vectors. The embeddings hold half the weights of a small encoder, and few of their rows are touched by a data set.
    """

    checkpoint: str = zoo.option(
        DEFAULT_CHECKPOINT,
        "a folder, an installed distribution that carries a checkpoint, or a name on the Hugging Face hub",
        empty=False,
    )
    download: bool = zoo.option(
        False, "whether a name on the hub may be fetched; else it must lie in the local cache already"
    )
    pooling: str = zoo.option(
        "mean", "what stands for a text: the mean over real tokens, or the first token", choices=("mean", "cls")
    )
    trainable_layers: int = zoo.option(
        -1, "how many of the top layers are trained; -1 for all, 0 for a frozen encoder", ge=-1
    )
    freeze_embeddings: bool = zoo.option(False, "leave the token and position tables as they are")
    max_length: int = zoo.option(
        128, "tokens of a text that are read, with the two special ones; at most the checkpoint's positions", ge=3
    )
    dropout: float = zoo.option(
        0.1, "dropout before the last layer; within the encoder the checkpoint's own rate holds", ge=0, lt=1
    )
    hidden: int = zoo.option(0, "width of a tanh layer between pooling and the last layer; 0 for none", ge=0)

    name: ClassVar[str] = "bert"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def fingerprint(self) -> str:
        """The checkpoint's files, so that other weights in the same folder are another model."""
        return find_checkpoint(self.checkpoint, self.download).digest()

    def encoder(self, train: zoo.Split) -> zoo.Encoder:
        """The checkpoint's own tokenizer. Nothing is fitted on the data."""
        from zoo_bert.tokens import TokenEncoder

        if train.modality != "text":
            raise zoo.Incompatible(f"Model 'bert' reads texts and the training split holds {train.modality} examples.")
        return TokenEncoder(find_checkpoint(self.checkpoint, self.download), self.max_length)

    def build(self, inputs: zoo.InputSpec, classes: int) -> torch.nn.Module:
        """The pretrained encoder with a fresh head. Raises CheckpointError when the weights are missing or refused."""
        from zoo_bert.model import EncoderClassifier, load_encoder

        encoder = load_encoder(find_checkpoint(self.checkpoint, self.download))
        return EncoderClassifier(encoder, self, inputs, classes)

    def recipe(self, modality: zoo.Modality) -> Mapping[str, Any]:
        """Two epochs of AdamW with a linear schedule. A frozen encoder leaves only a head, which wants more of both."""
        shared = {"optimizer": "adamw", "schedule": "linear", "batch_size": 32, "weight_decay": 0.01, "warmup": 0.1}
        if self.trainable_layers == 0:
            return {**shared, "epochs": 10, "learning_rate": 1e-3}
        return {**shared, "epochs": 2, "learning_rate": 1e-4}

    def layers(self, module: torch.nn.Module) -> Mapping[str, torch.nn.Module]:
        """The embeddings, every layer of the encoder and the pooled vector."""
        from zoo_bert.model import feature_layers

        return feature_layers(module)

    def frozen(self, module: torch.nn.Module) -> zoo.FrozenPart | None:
        """The encoder with its pooling, where `trainable_layers` is 0."""
        if self.trainable_layers != 0:
            return None
        import hashlib
        import json

        import transformers

        from zoo_bert.model import frozen_part

        config = json.dumps(find_checkpoint(self.checkpoint, self.download).config, sort_keys=True)
        described = hashlib.sha256(config.encode()).hexdigest()
        key = f"pooled/1 {self.pooling} config={described} transformers={transformers.__version__}"
        return frozen_part(module, key)

    def units(self, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[zoo.Units]:
        """The encoder's, as the names of its architecture tell, then those of the tanh layer. Without the checkpoint at
        hand there are no groups of heads."""
        try:
            heads = find_checkpoint(self.checkpoint, self.download).config.get("num_attention_heads")
        except zoo.CheckpointError:
            heads = None
        groups = list(zoo.transformer_units(shapes, heads))
        if not groups:
            return groups
        reader = "project.0" if self.hidden else "head"
        pooled = zoo.Slots(f"{reader}.weight", axis=1)
        groups[0] = replace(groups[0], read=(*groups[0].read, pooled))
        if self.hidden:
            tanh = (zoo.Slots("project.0.weight"), zoo.Slots("project.0.bias"))
            groups.append(zoo.Units("project", self.hidden, tanh, (zoo.Slots("head.weight", axis=1),)))
        return groups


def sentence_vectors(
    texts: Sequence[str], checkpoint: str = DEFAULT_CHECKPOINT, max_length: int = 128, download: bool = False
) -> np.ndarray:
    """The first token's vector and the mean over real tokens of a frozen encoder, end to end.

    Returns (texts, 2 x width) float32, not scaled, in the order of the texts; the same every time on one device.
    Raises CheckpointError when the checkpoint is missing or refused.
    """
    from zoo_bert.sentences import embed

    return embed(texts, find_checkpoint(checkpoint, download), max_length)


@zoo.hookimpl
def zoo_models() -> list[type[zoo.TorchModel]]:
    """The one model of this plugin."""
    return [BERT]

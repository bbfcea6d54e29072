"""The pretrained encoder with a classifier on top. Imported only when one is built."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

import zoo
from zoo_bert.quiet import quiet

if TYPE_CHECKING:
    from zoo_bert import BERT
    from zoo_bert.checkpoint import Checkpoint


class Pool(nn.Module):
    """One vector a text: the first token's, or the mean over real tokens."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """hidden: (batch, length, width); attention_mask: (batch, length) bool or None. Returns (batch, width)."""
        if self.kind == "cls":
            return hidden[:, 0]
        if attention_mask is None:
            return hidden.mean(1)
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(1) / kept.sum(1)


class EncoderClassifier(nn.Module):
    """Pretrained encoder, pool, perhaps a tanh layer, dropout, linear layer.

    encoder: a transformers model with `last_hidden_state`. Raises ConfigError when more layers are to be trained than
    the encoder has, or when its layers cannot be told apart.
    """

    def __init__(self, encoder: Any, options: BERT, inputs: zoo.InputSpec, classes: int):
        super().__init__()
        self.encoder = encoder
        self.pooled = Pool(options.pooling)
        width = int(encoder.config.hidden_size)
        self.project: nn.Module = nn.Identity()
        if options.hidden:
            self.project = nn.Sequential(nn.Linear(width, options.hidden), nn.Tanh())
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(options.hidden or width, classes)
        self.max_length = inputs.shape[0]
        self.frozen = freeze(encoder, options.trainable_layers)
        if options.freeze_embeddings:
            embeddings_of(encoder).requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As usual, but what is frozen stays in eval mode: it is a fixed function, without dropout."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids: (batch, length) int64; attention_mask: (batch, length) bool. Returns (batch, classes)."""
        logits: torch.Tensor = self.head(self.dropout(self.project(_pooled(self, input_ids, attention_mask))))
        return logits


class PooledEncoder(nn.Module):
    """The part of a classifier up to the pooled vector, with the same weights."""

    def __init__(self, whole: EncoderClassifier):
        super().__init__()
        self.encoder, self.pooled, self.max_length = whole.encoder, whole.pooled, whole.max_length

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Inputs as for the classifier. Returns (batch, width)."""
        return _pooled(self, input_ids, attention_mask)


def _pooled(
    module: EncoderClassifier | PooledEncoder, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    # No text is longer, so only padding is cut, for which the encoder might have no positions.
    input_ids, attention_mask = input_ids[:, : module.max_length], attention_mask[:, : module.max_length]
    mask = None if _all_real(attention_mask) else attention_mask
    vectors: torch.Tensor = module.pooled(
        module.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state, mask
    )
    return vectors


def frozen_part(module: nn.Module, key: str) -> zoo.FrozenPart:
    """The pooled encoder and the layers after it."""
    assert isinstance(module, EncoderClassifier)
    layers = {"project": module.project, "dropout": module.dropout, "head": module.head}
    return zoo.FrozenPart(PooledEncoder(module), nn.Sequential(OrderedDict(layers)), key)


def load_encoder(checkpoint: Checkpoint) -> Any:
    """The checkpoint's encoder in float32, without its pooler. Raises CheckpointError when weights do not fit."""
    import transformers

    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
            _require_encoder(config, checkpoint)
            encoder, report = _load(checkpoint, config)
    except zoo.CheckpointError:
        raise
    except Exception as error:  # a damaged file, an unknown architecture, a wrong shape: each a class of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise zoo.CheckpointError(f"Checkpoint {checkpoint.folder} cannot be loaded: {reason}") from error
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise zoo.CheckpointError(
            f"Checkpoint {checkpoint.folder} lacks {len(missing)} weights of its own architecture, among them "
            f"{missing[0]}.\nIt would be part random. Save it again, or use another."
        )
    return encoder.float()


def embeddings_of(encoder: Any) -> nn.Module:
    """The part before the layers: token, position and type tables with their norm."""
    embeddings: nn.Module = getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()
    return embeddings


def layers_of(encoder: Any) -> nn.ModuleList | None:
    """The encoder's layers in order, None when it does not keep one module for each (ALBERT shares one)."""
    count = encoder.config.num_hidden_layers
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    return next(lists, None)


def freeze(encoder: Any, trainable_layers: int) -> tuple[nn.Module, ...]:
    """Let only the top layers want a gradient (-1: everything). Returns the modules that are frozen as a whole."""
    if trainable_layers == -1:
        return ()
    if trainable_layers == 0:
        return (encoder.requires_grad_(False),)
    layers = layers_of(encoder)
    if layers is None:
        raise zoo.ConfigError(
            f"model.trainable_layers={trainable_layers}: a {encoder.config.model_type} shares its layers, "
            f"so they are trained all (-1) or not at all (0)."
        )
    if trainable_layers > len(layers):
        raise zoo.ConfigError(
            f"model.trainable_layers={trainable_layers} is out of range: this checkpoint has {len(layers)} layers."
        )
    frozen = (embeddings_of(encoder), *layers[: len(layers) - trainable_layers])
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def feature_layers(module: nn.Module) -> Mapping[str, nn.Module]:
    """What is kept as features, in the order of computation."""
    assert isinstance(module, EncoderClassifier)
    named: dict[str, nn.Module] = {"embeddings": embeddings_of(module.encoder)}
    layers = layers_of(module.encoder)
    if layers is not None:
        named.update((f"layer{index + 1}", layer) for index, layer in enumerate(layers))
    return {**named, "pooled": module.pooled}


def _require_encoder(config: Any, checkpoint: Checkpoint) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.is_encoder_decoder:
        raise zoo.CheckpointError(
            f"Checkpoint {checkpoint.folder} is a {config.model_type}, which is no text encoder.\n"
            f"'bert' takes encoders trained as masked language models: bert, roberta, distilbert, modernbert …"
        )


def _load(checkpoint: Checkpoint, config: Any) -> tuple[Any, Mapping[str, Any]]:
    from transformers import AutoModel

    options = {"config": config, "use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    try:
        loaded = AutoModel.from_pretrained(
            checkpoint.folder, output_loading_info=True, add_pooling_layer=False, **options
        )
    except TypeError:  # an architecture without a pooler
        loaded = AutoModel.from_pretrained(checkpoint.folder, output_loading_info=True, **options)
    encoder, report = loaded
    return encoder, report


def _all_real(attention_mask: torch.Tensor) -> bool:
    """Whether nothing is padding. Asked on CPU only: elsewhere the answer would stall the device, or break a graph."""
    if attention_mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool(attention_mask.all())

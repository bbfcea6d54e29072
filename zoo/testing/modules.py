"""Examination of a `TorchModel`: its encoder, its module and what it suggests to the engine."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from zoo.errors import ZooError
from zoo.models import Encoded, Encoder, Tokens, TorchModel
from zoo.testing import encoders, fresh, frozen, units
from zoo.testing.calling import Batch, batch, lengths, logits, seeded
from zoo.testing.findings import Finding, Inapplicable, Problem, Unavailable, perform
from zoo.testing.synthetic import CLASSES, Case, cases_of, probe_split, train_split

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made")
SOME = list(range(0, 16, 2))  # probe examples for what is slow and does not need them all
TOLERANCE = 1e-4  # of logits that must not depend on the company an example keeps: float32 sums in another order


class Elsewhere:
    """The encoders' digests from a new interpreter, asked for once: it may take seconds to import a framework."""

    def __init__(self, cls: type[TorchModel], options: Mapping[str, Any]) -> None:
        self.cls, self.options = cls, options
        self._answer: Mapping[str, str] | Unavailable | None = None

    def digest(self, case: Case) -> str | None:
        """Digest of one case's encoder. Raises Unavailable."""
        if self._answer is None:
            try:
                self._answer = fresh.encoder_digests(self.cls, self.options)
            except Unavailable as reason:
                self._answer = reason
        if isinstance(self._answer, Unavailable):
            raise Unavailable(str(self._answer))
        return self._answer.get(case.label)


class Trial:
    """One model on one kind of input. What is costly is made once; what failed once is not tried again."""

    def __init__(self, cls: type[TorchModel], options: Mapping[str, Any], case: Case, elsewhere: Elsewhere) -> None:
        self.cls, self.options, self.case, self.elsewhere = cls, options, case, elsewhere
        self._made: dict[str, Any] = {}
        self._failed: set[str] = set()

    def break_off(self, step: str) -> None:
        """The checks that need what follows from `step` are not made."""
        self._failed.add(step)

    def require(self, *steps: str) -> None:
        """Raise Unavailable when one of the steps was broken off: its consequences would only repeat the finding."""
        if broken := sorted(self._failed & set(steps)):
            raise Unavailable(f"'{broken[0]}' failed before")

    def model(self) -> TorchModel:
        """A new instance."""
        return self.cls(**self.options)

    def fit(self) -> Encoder:
        """A new encoder, fitted on the training split."""
        return self.model().encoder(train_split(self.case))

    def encoder(self) -> Encoder:
        """The fitted encoder."""
        return self._once("encoder", (), self.fit)

    def encoded(self) -> Encoded:
        """The probe examples, encoded."""
        return self._once("encode", ("encoder", "spec"), self._encode)

    def module(self) -> torch.nn.Module:
        """The module with fresh weights under seed 0."""
        return self._once("build", ("encoder", "spec"), self.build)

    def build(self, seed: int = 0, classes: int = len(CLASSES)) -> torch.nn.Module:
        """A new module with fresh weights."""
        with seeded(seed):
            return self.model().build(self.encoder().spec, classes)

    def batch(self, rows: list[int] | None = None, extra: int = 0) -> Batch:
        """Probe examples as the module gets them; all of them by default."""
        chosen = list(range(len(self.encoded()))) if rows is None else rows
        return batch(self.encoded(), self.encoder().spec, chosen, extra)

    def answer(self) -> torch.Tensor:
        """Logits of all probe examples in eval mode, once they are known to be sound and the same each time."""
        self.require("determinism")
        return self.first_answer()

    def first_answer(self) -> torch.Tensor:
        """The same, before it is known whether another call gives the same."""
        return self._once("logits", ("encode", "build"), lambda: logits(self.module(), self.batch()))

    def _encode(self) -> Encoded:
        return self.encoder().encode(probe_split(self.case).examples)

    def _once(self, step: str, needs: tuple[str, ...], make: Callable[[], Made]) -> Made:
        self.require(step, *needs)
        if step not in self._made:
            try:
                self._made[step] = make()
            except Unavailable:
                raise
            except Exception:
                self._failed.add(step)
                raise
        return cast("Made", self._made[step])


def examine(cls: type[TorchModel], options: Mapping[str, Any]) -> list[Finding]:
    """Findings for every case of the modalities that the class claims."""
    elsewhere = Elsewhere(cls, options)
    findings = []
    for case in cases_of(cls.modalities):
        trial = Trial(cls, options, case, elsewhere)
        for name, check in CHECKS.items():
            findings += perform(name, case.label, check, trial)
    return findings


def _builds(trial: Trial) -> Iterator[Problem]:
    import torch

    module: object = trial.module()
    if not isinstance(module, torch.nn.Module):
        yield Problem(f"build() returned a {type(module).__name__}", "Return a torch.nn.Module.")
        trial.break_off("build")
    elif odd := [name for name, value in module.state_dict().items() if not isinstance(value, torch.Tensor)]:
        yield Problem(
            f"state_dict() holds things that are no tensors: {_listed(odd)}", "Keep options in the dataclass."
        )
        trial.break_off("build")
    elif not any(parameter.requires_grad for parameter in module.parameters()):
        yield Problem("no parameter has requires_grad", "Leave at least the last layer trainable.")
        trial.break_off("gradient")


def _gives_logits(trial: Trial) -> Iterator[Problem]:
    for classes in (len(CLASSES), 2):
        module = trial.module() if classes == len(CLASSES) else trial.build(classes=classes)
        names = module.state_dict().keys()
        problem = _logits_problem(module, trial.batch(), classes)
        if late := sorted(module.state_dict().keys() ^ names):
            problem = Problem(
                f"its first call added or removed {_listed(late)}",
                "Make every parameter and buffer in build(): the optimizer and a loaded file know no later ones.",
            )
        if problem is not None:
            trial.break_off("logits")
            yield problem
            return


def _logits_problem(module: torch.nn.Module, inputs: Batch, classes: int) -> Problem | None:
    import torch

    module.eval()
    with torch.no_grad():
        got: object = module(*inputs)
    wanted = (len(inputs[0]), classes)
    if not isinstance(got, torch.Tensor):
        return Problem(f"the module returned a {type(got).__name__}", "Return the tensor of logits itself.")
    if tuple(got.shape) != wanted:
        return Problem(
            f"logits have shape {tuple(got.shape)}; wanted {wanted}, (batch, classes)",
            "Return one logit a class and example; build() is told the number of classes.",
        )
    if not got.is_floating_point():
        return Problem(f"logits are {got.dtype}", "Return floats.")
    if not bool(torch.isfinite(got).all()):
        return Problem("some logits are not finite", "Look for log(0), an empty mean or a mask over all tokens.")
    return None


def _is_deterministic(trial: Trial) -> Iterator[Problem]:
    import torch

    answer, module = trial.first_answer(), trial.module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    again = logits(module, trial.batch())
    if any(not torch.equal(before[name], value) for name, value in module.state_dict().items()):
        trial.break_off("determinism")
        yield Problem("evaluating changed the module's state", "Update buffers only `if self.training`.")
    elif not torch.equal(answer, again):
        trial.break_off("determinism")
        yield Problem("in eval mode the same batch gave two answers", "Draw random numbers only `if self.training`.")
    if not torch.equal(_trained_once(trial), _trained_once(trial)):
        yield Problem(
            "in train mode, under one seed, the same batch gave two answers",
            "Use torch's global generator for dropout and noise, not one of your own.",
        )


def _trained_once(trial: Trial) -> torch.Tensor:
    """Logits in train mode under a fixed seed, from a copy of the module."""
    module = copy.deepcopy(trial.module())
    with seeded(7):
        return logits(module, trial.batch(SOME), training=True)


def _is_seeded(trial: Trial) -> Iterator[Problem]:
    import torch

    answer, again = trial.answer(), trial.build(seed=0)
    if changed := _changed(trial.module(), again):
        yield Problem(
            f"two modules built under one seed differ ({_listed(changed)})",
            "Draw initial weights from torch's global generator, which the engine has seeded.",
        )
    elif not torch.equal(answer, logits(again, trial.batch())):
        yield Problem("two modules with equal weights give different logits", "Keep no state outside of the module.")
    if not _changed(trial.module(), trial.build(seed=1)):
        yield Problem(
            "another seed gives the same weights",
            "Fresh weights should come from torch's global generator; replicas would be copies of each other.",
            "warning",
        )


def _is_reached_by_gradient(trial: Trial) -> Iterator[Problem]:
    import torch

    trial.require("gradient")
    trial.answer()
    module = trial.build(seed=0)
    module.train()
    labels = torch.from_numpy(probe_split(trial.case).labels)
    with seeded(5):
        torch.nn.functional.cross_entropy(module(*trial.batch(SOME)).float(), labels[SOME]).backward()  # type: ignore[no-untyped-call]
    trainable = [(name, parameter.grad) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if lost := [name for name, grad in trainable if grad is None]:
        yield Problem(
            f"no gradient reaches {_listed(lost)}",
            "Use the parameter in forward() (no .detach(), no numpy), or set requires_grad_(False) on it.",
        )
    if wild := [name for name, grad in trainable if grad is not None and not bool(torch.isfinite(grad).all())]:
        yield Problem(
            f"the gradient of {_listed(wild)} is not finite", "Look for sqrt(0), a norm of 0, 0/0 under a mask."
        )
    if dead := [name for name, grad in trainable if grad is not None and not bool(grad.any())]:
        yield Problem(
            f"the gradient of {_listed(dead)} is 0 throughout",
            "It cannot learn: dead units, or a factor of 0.",
            "warning",
        )


def _survives_saving(trial: Trial) -> Iterator[Problem]:
    answer, restored = trial.answer(), trial.build(seed=11)
    try:
        restored.load_state_dict(_through_a_file(trial.module().state_dict()))
    except (RuntimeError, ValueError, KeyError) as error:
        yield Problem(
            f"its weights cannot be saved and loaded again: {' '.join(str(error).split())[:300]}",
            "Let build() give the same names and shapes each time, before any batch was seen.",
        )
        return
    if not (difference := _largest(answer, logits(restored, trial.batch()))) <= TOLERANCE:
        yield Problem(
            f"saved and loaded again, its logits differ by up to {difference:.2g}",
            "Something that matters is not in state_dict(): use nn.Parameter, register_buffer and named submodules.",
        )


def _through_a_file(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the engine stores weights: tied ones once a name, each contiguous."""
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, file)
        return load_file(file)


def _ignores_company(trial: Trial) -> Iterator[Problem]:
    import torch

    answer = trial.answer()
    # Slices of one batch, so that the padding stays as it is: the next check is about that.
    whole = trial.batch()
    alone = torch.cat([logits(trial.module(), tuple(part[[row]] for part in whole)) for row in range(len(answer))])
    if not (difference := _largest(answer, alone)) <= TOLERANCE:
        yield Problem(
            f"in eval mode, logits alone and in a batch of {len(answer)} differ by up to {difference:.2g}",
            "No statistic over the batch in eval mode; mask padding before means and maxima.",
        )


def _ignores_padding(trial: Trial) -> Iterator[Problem]:
    encoded, spec = trial.encoded(), trial.encoder().spec
    if not isinstance(encoded, Tokens):
        raise Inapplicable
    trial.answer()
    rows = [row for row, length in enumerate(lengths(encoded)) if length + 5 <= spec.shape[0]]
    if not rows:
        raise Unavailable(f"max_length is {spec.shape[0]}, which leaves no room for padding")
    plain, padded = (logits(trial.module(), trial.batch(rows, extra)) for extra in (0, 13))
    if not (difference := _largest(plain, padded)) <= TOLERANCE:
        yield Problem(
            f"13 more padding tokens changed the logits by up to {difference:.2g}",
            "Use attention_mask: leave padding out of attention, means, maxima and convolutions' edges.",
        )


def _has_layers(trial: Trial) -> Iterator[Problem]:
    trial.answer()
    module = trial.module()
    named = trial.model().layers(module)
    if not named:
        yield Problem("layers() names no layer", "Name the blocks whose outputs are worth comparing.", "warning")
    inside = {id(part) for part in module.modules()}
    if strangers := [name for name, layer in named.items() if id(layer) not in inside]:
        yield Problem(
            f"{_listed(strangers)} is no part of the module", "Look the layers up in the module that is given."
        )
    inputs = trial.batch()
    outputs = _outputs(module, {name: layer for name, layer in named.items() if id(layer) in inside}, inputs)
    for name in named:
        if name not in strangers and (got := _unusable(outputs.get(name), inputs)):
            yield Problem(
                f"layer '{name}' {got}",
                "A layer must be called and return (batch, width), (batch, length, width) or (batch, channels, h, w).",
            )


def _outputs(module: torch.nn.Module, named: Mapping[str, torch.nn.Module], inputs: Batch) -> dict[str, Any]:
    """What each layer returns; of a tuple, the first item, as in the engine."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple | list) else output

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in named.items()]
    try:
        logits(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _unusable(output: Any, inputs: Batch) -> str:
    """Why an output cannot be pooled to (batch, width); empty when it can."""
    import torch

    from zoo.engine.evaluation import pool

    if output is None:
        return "is never called"
    if not isinstance(output, torch.Tensor):
        return f"returns a {type(output).__name__}"
    examples = len(inputs[0])
    if output.dim() not in (2, 3, 4) or len(output) != examples:
        return f"returns shape {tuple(output.shape)} for {examples} examples"
    pooled = pool(output, inputs[1] if len(inputs) > 1 else None)
    return "" if bool(torch.isfinite(pooled).all()) else "returns numbers that are not finite"


def _suggests_known_options(trial: Trial) -> Iterator[Problem]:
    from zoo.config import TrainerOptions, decide

    recipe = trial.model().recipe(trial.case.modality)
    try:
        decide(TrainerOptions(), recipe)
    except (ZooError, ValueError, TypeError, AttributeError) as error:
        yield Problem(
            f"recipe('{trial.case.modality}') is {dict(recipe)}: {error}", "Use names and values of `trainer`."
        )


def _groups_parameters(trial: Trial) -> Iterator[Problem]:
    module = trial.module()
    names = [name for name, _ in module.named_parameters()]
    for prefix, factor in trial.model().parameter_groups(module).items():
        if not any(name.startswith(prefix) for name in names):
            yield Problem(
                f"no parameter begins with '{prefix}'", f"They are called {_listed(names)}; use such a beginning."
            )
        if not 0 <= factor < float("inf"):
            yield Problem(f"the multiplier of '{prefix}' is {factor}", "Give a number from 0 up.")


def _changed(one: torch.nn.Module, two: torch.nn.Module) -> list[str]:
    import torch

    first, second = one.state_dict(), two.state_dict()
    return [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    ]


def _largest(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest difference, relative where logits are above 1."""
    return float(((one - two).abs() / one.abs().clamp(min=1)).max())


def _listed(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


CHECKS: Mapping[str, Callable[[Trial], Iterator[Problem]]] = {
    "encoder": encoders.is_encoder,
    "spec": encoders.has_sane_spec,
    "encode": encoders.encodes,
    "same fit, same key": encoders.is_repeatable,
    "encode alone": encoders.encodes_alone,
    "other fit, other key": encoders.key_tells_fits_apart,
    "other modality": encoders.refuses_other_modality,
    "build": _builds,
    "logits": _gives_logits,
    "determinism": _is_deterministic,
    "seed": _is_seeded,
    "gradient": _is_reached_by_gradient,
    "save and load": _survives_saving,
    "batch size": _ignores_company,
    "padding": _ignores_padding,
    "layers": _has_layers,
    "recipe": _suggests_known_options,
    "parameter groups": _groups_parameters,
    "frozen part": frozen.is_frozen_in_part,
    "units": units.declares_units,
}

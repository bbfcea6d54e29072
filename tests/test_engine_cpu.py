"""Dropout, attention, look-ups and casts in training on a CPU: the same functions as torch's, computed otherwise."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from zoo.engine import cpu
from zoo.engine.cpu import MOST_TOKENS, CpuAnswers, CpuTraining, Tables, answering

CPU = torch.device("cpu")

MASKS = {
    "none": None,
    "padding": torch.arange(9) < torch.tensor([9, 4]).view(2, 1, 1, 1),
    "added": torch.zeros(2, 1, 9, 9).masked_fill(torch.arange(9) > 6, -1e9),
}


def heads(dtype: torch.dtype = torch.float64, length: int = 9) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, 3, length, 8, dtype=dtype).requires_grad_() for _ in range(3))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_for_and_the_others_make_up_for_it(p: float) -> None:
    with CpuTraining(0):
        dropped = F.dropout(torch.ones(400, 501), p)
    zeros = int((dropped == 0).sum())
    assert binomtest(zeros, dropped.numel(), p).pvalue > 1e-3
    torch.testing.assert_close(dropped[dropped != 0].unique(), torch.tensor([1 / (1 - p)]), rtol=1e-4, atol=0)


def test_what_is_dropped_has_no_gradient() -> None:
    given = torch.randn(7, 5).requires_grad_()
    with CpuTraining(0):
        dropped = F.dropout(given, 0.3)
    dropped.sum().backward()
    torch.testing.assert_close(given.grad * given, dropped)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_mask_has_the_bits_of_its_scale(dtype):
    """As torch has it when it turns booleans into numbers and multiplies them."""
    which = np.random.default_rng(0).random(1003) < 0.3
    scale = 65536 / 58982
    wanted = torch.from_numpy(which).to(dtype).mul_(scale)
    found = cpu._either(which, scale, dtype)
    assert found.dtype is dtype
    assert torch.equal(found, wanted)


def test_neighbours_and_calls_are_dropped_independently() -> None:
    with CpuTraining(0):
        first, second = (F.dropout(torch.ones(100_000), 0.5) > 0 for _ in range(2))
    for both in (first & second, first[:-1] & first[1:], first[:-4] & first[4:]):
        assert binomtest(int(both.sum()), both.numel(), 0.25).pvalue > 1e-3


def test_the_seed_decides_and_neither_torchs_state_nor_its_threads() -> None:
    def drawn(seed: int) -> torch.Tensor:
        with CpuTraining(seed):
            return F.dropout(torch.ones(1000), 0.5)

    state = torch.get_rng_state()
    wanted = drawn(3)
    assert torch.equal(torch.get_rng_state(), state)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert torch.equal(drawn(3), wanted)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(drawn(4), wanted)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_or_nothing_is_torchs(p: float) -> None:
    with CpuTraining(0):
        assert torch.equal(F.dropout(torch.ones(9), p), torch.full((9,), 1 - p))


def test_modules_reach_it_and_evaluation_drops_nothing() -> None:
    module = nn.Dropout(0.5)
    with CpuTraining(0):
        assert (module(torch.ones(1000)) == 0).any()
        assert (module.eval()(torch.ones(1000)) == 1).all()
        within = torch.ones(1000)
        F.dropout(within, 0.5, inplace=True)
        assert (within == 0).any()
        with pytest.raises(ValueError, match="probability"):
            F.dropout(within, 1.5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_is_torchs_formula(mask: torch.Tensor | None, scale: float | None) -> None:
    mask = mask.double() if mask is not None and mask.is_floating_point() else mask
    wanted = F.scaled_dot_product_attention(*heads(), mask, scale=scale)
    # A rate that rounds to no dropout at all takes the formula and drops nothing.
    given = heads()
    with CpuTraining(0):
        found = F.scaled_dot_product_attention(*given, mask, 1e-9, scale=scale)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    expected = torch.autograd.grad(F.scaled_dot_product_attention(*given, mask, scale=scale).square().sum(), given)
    for one, other in zip(torch.autograd.grad(found.square().sum(), given), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_attention_in_bfloat16_is_as_near_to_the_truth_as_torchs() -> None:
    exact = F.scaled_dot_product_attention(*heads())
    given = [tensor.to(torch.bfloat16) for tensor in heads()]
    torchs = F.scaled_dot_product_attention(*given)
    with CpuTraining(0):
        ours = F.scaled_dot_product_attention(*given)
    assert (ours - exact).abs().mean() < 1.5 * (torchs - exact).abs().mean()


def test_attention_drops_weights_whose_mean_over_draws_is_the_attention_itself() -> None:
    given, wanted = heads(), F.scaled_dot_product_attention(*heads())
    with CpuTraining(0):
        drawn = torch.stack([F.scaled_dot_product_attention(*given, None, 0.2).detach() for _ in range(2000)])
    error = (drawn.mean(0) - wanted) / (drawn.std(0) / math.sqrt(2000))
    assert error.abs().max() < 5  # of 432 numbers
    assert 0.8 < error.square().mean() < 1.2


def test_a_query_that_may_look_at_nothing_gets_zeros_as_from_torch() -> None:
    mask = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    mask[0, :, 3] = False
    with CpuTraining(0):
        found = F.scaled_dot_product_attention(*heads(), mask, 0.5)
    assert (found[0, :, 3] == 0).all()
    assert found.isfinite().all()


@pytest.mark.parametrize("options", [{"is_causal": True}, {"attn_mask": None}])
def test_what_torch_does_well_is_left_to_it(options: dict[str, object]) -> None:
    long = heads(torch.bfloat16, MOST_TOKENS + 1)
    with CpuTraining(0):
        assert torch.equal(
            F.scaled_dot_product_attention(*long, **options),  # type: ignore[arg-type]
            F.scaled_dot_product_attention(*long, **options),  # type: ignore[arg-type]
        )


# --- look-ups, casts and linear layers --------------------------------------------------------------------------------

TABLE = (3000, 400)  # large enough to be worth keeping its gradient


def looked_up(tables: Tables | None, weight: nn.Parameter, ids: torch.Tensor, padding: int | None = None) -> None:
    """Square the rows and go back."""
    if tables is None:
        F.embedding(ids, weight, padding).square().sum().backward()
        return
    tables.look_up(ids, weight, padding).square().sum().backward()
    tables.settle()


def table() -> nn.Parameter:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(TABLE))


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_a_tables_gradient_is_torchs_in_every_step(padding: int | None) -> None:
    ours, theirs, tables = table(), table(), Tables()
    addresses = set()
    for step in range(4):
        ids = torch.randint(0, TABLE[0], (8, 20), generator=torch.Generator().manual_seed(step))
        ids[:, 15:] = 0 if padding is None else padding % TABLE[0]
        looked_up(tables, ours, ids, padding)
        looked_up(None, theirs, ids, padding)
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)
        addresses.add(ours.grad.data_ptr())
        ours.grad.mul_(0.5)  # clipping changes it in place
        tables.clear()
        assert ours.grad is None
        theirs.grad = None
    assert len(addresses) == 1, "one gradient is kept and used again"


@pytest.mark.parametrize("how", ["tied", "twice", "accumulated"])
def test_a_table_with_a_gradient_from_elsewhere_is_left_to_torch(how: str) -> None:
    def step(weight: nn.Parameter, tables: Tables | None, seed: int) -> None:
        ids = torch.randint(0, TABLE[0], (8, 20), generator=torch.Generator().manual_seed(seed))
        look_up = F.embedding if tables is None else tables.look_up
        if how == "accumulated":
            for half in ids.chunk(2):
                looked_up(tables, weight, half)
            return
        found = look_up(ids, weight)
        other = found @ weight.T if how == "tied" else look_up(ids.flip(0) // 2, weight)
        (found.square().sum() + other.square().sum()).backward()
        if tables is not None:
            tables.settle()

    ours, theirs, tables = table(), table(), Tables()
    for seed in range(3):
        step(ours, tables, seed)
        step(theirs, None, seed)
        torch.testing.assert_close(ours.grad, theirs.grad)
        tables.clear()
        ours.grad = theirs.grad = None


def test_small_frozen_and_special_tables_are_torchs() -> None:
    tables, ids = Tables(), torch.arange(5)
    small, frozen = nn.Parameter(torch.randn(9, 4)), nn.Parameter(torch.randn(TABLE), requires_grad=False)
    for found in (tables.look_up(ids, small), tables.look_up(ids, frozen), tables.look_up(ids, table(), max_norm=1.0)):
        assert not type(found.grad_fn).__name__.startswith("_LookUp")


def test_layers_that_read_one_tensor_under_autocast_give_torchs_outputs_and_gradients() -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def passed(inside: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        given = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), CpuTraining(0) if inside else contextlib.nullcontext():
            hidden = given * 1.5
            found = [layer(hidden) for layer in layers]
            hidden = hidden.add_(1.0)  # the same tensor with other values
            found += [layer(hidden) for layer in layers]
        sum(each.float().square().sum() for each in found).backward()  # type: ignore[union-attr]
        gradients = [weight.grad for weight in (given, *layers.parameters())]
        layers.zero_grad(set_to_none=True)
        return found, gradients  # type: ignore[return-value]

    ours, theirs = passed(True), passed(False)
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.abs().max()))


def layers_apart(count: int = 2) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(32, 32) for _ in range(count)]


Read = Callable[[torch.Tensor, nn.Module, nn.Module], torch.Tensor]


def after_no_grad(hidden: torch.Tensor, one: nn.Module, other: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        one(hidden)
    found: torch.Tensor = other(hidden)
    return found


def before_no_grad(hidden: torch.Tensor, one: nn.Module, other: nn.Module) -> torch.Tensor:
    found: torch.Tensor = one(hidden)
    with torch.no_grad():
        assert not other(hidden).requires_grad
    return found


def in_two_types(hidden: torch.Tensor, one: nn.Module, other: nn.Module) -> torch.Tensor:
    one(hidden)
    with torch.autocast("cpu", torch.float16):
        found: torch.Tensor = other(hidden)
    assert found.dtype is torch.float16
    return found


@pytest.mark.parametrize("read", [after_no_grad, before_no_grad, in_two_types])
def test_a_cast_is_shared_only_by_layers_that_would_make_the_same(read: Read) -> None:
    def passed(inside: bool) -> tuple[torch.Tensor, torch.Tensor]:
        given = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), CpuTraining(0) if inside else contextlib.nullcontext():
            found = read(given * 1.5, *layers_apart())
        found.float().square().sum().backward()
        assert given.grad is not None
        return found, given.grad

    for one, other in zip(passed(True), passed(False), strict=True):
        assert torch.equal(one, other)


def test_a_tensor_that_is_told_later_to_want_a_gradient_gets_one() -> None:
    one, other = layers_apart()
    given = torch.ones(64, 32)
    with torch.autocast("cpu", torch.bfloat16), CpuTraining(0):
        one(given)
        other(given.requires_grad_()).float().sum().backward()
    assert given.grad is not None


@pytest.mark.parametrize("leave", [torch.inference_mode, torch.no_grad])
def test_a_frozen_body_without_gradients_feeds_a_head(
    leave: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    body, head = layers_apart()
    given = torch.randn(64, 32)

    def passed(inside: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16), CpuTraining(0) if inside else contextlib.nullcontext():
            with leave():
                features = body(given * 2.0).float()
                probe = body(features)  # of a tensor made within, read within
            outside = head(features.clone() + probe)
        outside.float().sum().backward()
        assert head.weight.grad is not None
        gradient, head.weight.grad = head.weight.grad, None
        return [outside, gradient]

    for one, other in zip(passed(True), passed(False), strict=True):
        assert torch.equal(one, other)


def test_an_inference_tensor_may_be_read_where_gradients_are_on() -> None:
    one, _ = layers_apart()
    with torch.inference_mode():
        features = torch.randn(64, 32)
    one.requires_grad_(False)  # torch keeps no inference tensor for the way back
    with torch.autocast("cpu", torch.bfloat16):
        wanted = one(features)
        with CpuTraining(0):
            assert torch.equal(one(features), wanted)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 2), (2, 3, 4)])
def test_ids_of_any_shape_and_kind_are_looked_up(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    ours, theirs, tables = table(), table(), Tables()
    for step in range(3):
        ids = torch.randint(0, TABLE[0], shape, generator=torch.Generator().manual_seed(step)).to(kind)
        looked_up(tables, ours, ids)
        looked_up(None, theirs, ids)
        torch.testing.assert_close(ours.grad, theirs.grad)
        tables.clear()
        theirs.grad = None


def test_ids_that_are_overwritten_after_the_way_back_leave_nothing_behind() -> None:
    ours, theirs, tables, buffer = table(), table(), Tables(), torch.empty(50, dtype=torch.int64)
    for step in range(3):
        for weight, home in ((ours, tables), (theirs, None)):
            buffer.copy_(torch.randint(0, TABLE[0], (50,), generator=torch.Generator().manual_seed(step)))
            looked_up(home, weight, buffer)
            buffer.fill_(7)
        torch.testing.assert_close(ours.grad, theirs.grad)
        tables.clear()
        theirs.grad = None


def test_a_padding_id_outside_the_table_is_refused_as_by_torch() -> None:
    with CpuTraining(0), pytest.raises(AssertionError, match="Padding_idx must be within"):
        F.embedding(torch.arange(3), table(), TABLE[0] + 1)


# --- activation checkpointing: what is computed once more on the way back ---------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_mask_of_a_checkpointed_dropout_is_that_of_its_gradient(reentrant: bool) -> None:
    given = torch.randn(400, 50).requires_grad_()
    with CpuTraining(0):
        dropped = checkpoint(lambda values: F.dropout(values * 1.0, 0.5), given, use_reentrant=reentrant)
    dropped.sum().backward()
    torch.testing.assert_close(given.grad * given, dropped)


def block(hidden: torch.Tensor, layers: nn.ModuleList, weight: nn.Parameter) -> torch.Tensor:
    """Everything that the mode may compute otherwise."""
    ids = torch.arange(hidden.shape[-2]).expand(hidden.shape[:-1])
    hidden = F.dropout(hidden + F.embedding(ids, weight)[..., : hidden.shape[-1]], 0.3)
    mixed = F.scaled_dot_product_attention(*(layer(hidden) for layer in layers), dropout_p=0.2)
    return mixed + F.scaled_dot_product_attention(*(layer(mixed) for layer in layers))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_checkpointed_block_is_torchs_without_checkpoints(reentrant: bool, precision: torch.dtype) -> None:
    def passed(inside: bool) -> list[torch.Tensor]:
        layers, weight = nn.ModuleList(layers_apart(3)), table()
        torch.manual_seed(1)
        given = torch.randn(2, 3, 40, 32).requires_grad_()
        lower = torch.autocast("cpu", precision, enabled=precision is torch.bfloat16)
        with lower, CpuTraining(0) if inside else contextlib.nullcontext():
            found = (
                checkpoint(block, given, layers, weight, use_reentrant=reentrant)
                if inside
                else block(given, layers, weight)
            )
        found.float().square().sum().backward()
        return [found, *(each.grad for each in (given, weight, *layers.parameters()) if each.grad is not None)]

    ours, theirs = passed(True), passed(False)
    assert len(ours) == len(theirs) == 9
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_a_layer_after_a_checkpointed_one_has_our_bits_again() -> None:
    def drawn(before: Callable[[torch.Tensor], object]) -> torch.Tensor:
        given = torch.ones(100, 100).requires_grad_()
        with CpuTraining(0):
            before(given)
            return F.dropout(given, 0.5)

    wanted = drawn(lambda given: None)
    for reentrant in (True, False):
        assert torch.equal(drawn(lambda given: checkpoint(F.dropout, given, use_reentrant=reentrant)), wanted)  # noqa: B023
    with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
        assert not torch.equal(drawn(lambda given: None), wanted), "left to torch"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(300, 256), (4, 100, 256)])
def test_large_layers_answer_in_float32_as_exactly_as_torchs(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, given = nn.Linear(256, 128, bias=bias), torch.randn(shape)
    exact = copy.deepcopy(layer).double()(given.double())
    with torch.inference_mode():
        torchs = layer(given)
        with answering(layer, CPU):
            ours = layer(given)
    assert ours.dtype is torch.float32
    assert (ours - exact).abs().mean() < 3 * (torchs - exact).abs().mean()


def test_small_layers_and_gradients_are_torchs() -> None:
    small, large = nn.Linear(8, 8), nn.Linear(256, 128)
    assert not isinstance(answering(small, CPU), CpuAnswers)
    given = torch.randn(300, 256)
    with CpuAnswers():
        assert torch.equal(large(given[:8]), F.linear(given[:8], large.weight, large.bias))
        assert large(given).requires_grad
        with torch.inference_mode():
            assert large(torch.randn(256, 300).T).shape == (300, 128)
            with torch.autocast("cpu", torch.bfloat16):
                assert large(given).dtype is torch.bfloat16

"""What a module computes with and how, by what its forward pass does, not by what it says of itself.

`make assignments` puts this file into the autograder, beside the judge. It runs where the module is, in the notebook.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# Operations that can hold a factor, whichever way it is written.
PRODUCTS = {"mul", "lerp", "addcmul", "bmm"}


class _Weights(TorchDispatchMode):
    """Notes every float tensor that a computation reads and neither was given nor made."""

    def __init__(self, given):
        super().__init__()
        self.known = list(given)  # kept alive, or another could get the same place in memory
        self.places = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.weights = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for tensor in tensors_in((args, kwargs)):
            place = tensor.untyped_storage().data_ptr()
            if place not in self.places and tensor.is_floating_point():
                self.weights[place] = tensor
        made = operation(*args, **(kwargs or {}))
        for tensor in tensors_in(made):
            self.known.append(tensor)
            if tensor.untyped_storage().data_ptr() not in self.weights:
                self.places.add(tensor.untyped_storage().data_ptr())
        return made


class _Factors(TorchDispatchMode):
    """Notes every factor in [0, 1] that varies, and puts the mean of number `constant` in its place."""

    def __init__(self, constant):
        super().__init__()
        self.constant, self.factors = constant, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.__name__.split(".")[0]
        if name.rstrip("_") in PRODUCTS:
            args = [self.seen(each, name.endswith("_")) if isinstance(each, Tensor) else each for each in args]
        return operation(*args, **(kwargs or {}))

    def seen(self, tensor, in_place):
        if not tensor.is_floating_point() or tensor.min() < 0 or tensor.max() > 1 or tensor.std() < 0.01:
            return tensor
        self.factors.append(tensor.clone())
        if len(self.factors) - 1 != self.constant:
            return tensor
        return tensor.fill_(tensor.mean()) if in_place else tensor.mean().expand_as(tensor)


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested arguments or results."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def weights_used(module: nn.Module, *inputs: Tensor) -> int:
    """How many numbers a module's forward pass reads besides its inputs, wherever it keeps them."""
    with _Weights(inputs) as mode:
        module(*inputs)
    return sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in mode.weights.values())


@torch.no_grad()
def largest_gate(module: nn.Module, inputs: list[Tensor], others: list[Tensor]) -> float:
    """How far the output moves, at most, where a factor in [0, 1] that depends on the inputs is put at its mean.

    In units of the output's standard deviation; 0 without such a factor. `others` are inputs to see what depends by.
    """
    plain, factors = _run(module, inputs)
    changes = [0.0]
    for number, (here, there) in enumerate(zip(factors, _run(module, others)[1], strict=False)):
        if here.shape == there.shape and not torch.allclose(here, there, atol=0.01):
            changes.append(float((_run(module, inputs, number)[0] - plain).abs().max() / plain.std()))
    return max(changes)


def _run(module, inputs, constant=None):
    torch.manual_seed(0)  # what a module draws by itself depends on nothing
    with _Factors(constant) as mode:
        return module(*inputs), mode.factors

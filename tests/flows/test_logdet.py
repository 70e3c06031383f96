"""log |det| of every layer and of whole flows against the autograd Jacobian, in both directions, in float64.

Inverse∘forward alone would pass with a log-det that is doubled in both directions.
"""

import pytest
import torch
from torch import nn

from course_lib.flows.flow import Chain, Flatten, Logit, MultiScale, Squeeze
from course_lib.flows.glow import ActNorm, Coupling, InvertibleConv1x1, glow
from course_lib.flows.realnvp import AffineCoupling, channel_mask, checkerboard, conv_net, realnvp, realnvp_2d
from course_lib.nn.mlp import mlp

PLANES = (4, 4, 2)  # channels, height, width: small enough for a dense Jacobian


def coupled(mask):
    return AffineCoupling(mask, conv_net(4, 6))


def two_levels():
    first = Chain([Squeeze(), ActNorm(8)])
    second = Chain([Squeeze(), ActNorm(16)])
    return MultiScale([first, second], [(8, 2, 2), (16, 1, 1)])


# name -> (layer, shape of its input)
LAYERS = {
    "coupling, checkerboard": lambda: (coupled(checkerboard(4, 2, False)), PLANES),
    "coupling, odd checkerboard": lambda: (coupled(checkerboard(4, 2, True)), PLANES),
    "coupling, first channels": lambda: (coupled(channel_mask(4, False)), PLANES),
    "coupling, second channels": lambda: (coupled(channel_mask(4, True)), PLANES),
    "coupling of a vector": lambda: (AffineCoupling(torch.tensor([1.0, 0.0, 1.0]), mlp([3, 8, 6])), (3,)),
    "coupling, tight bound": lambda: (AffineCoupling(torch.tensor([1.0, 0.0]), mlp([2, 8, 4]), bound=0.3), (2,)),
    "actnorm of planes": lambda: (ActNorm(4), PLANES),
    "actnorm of a vector": lambda: (ActNorm(5), (5,)),
    "invertible 1×1 convolution": lambda: (InvertibleConv1x1(4), PLANES),
    "Glow's coupling": lambda: (Coupling(4, 6), PLANES),
    "Glow's coupling, odd channels": lambda: (Coupling(5, 6), (5, 2, 3)),
    "squeeze": lambda: (Squeeze(), PLANES),
    "flatten": lambda: (Flatten(PLANES), PLANES),
    "logit": lambda: (Logit(), PLANES),
    "logit, other alpha": lambda: (Logit(0.01), (6,)),
    "chain": lambda: (Chain([ActNorm(4), coupled(channel_mask(4, False)), InvertibleConv1x1(4), Squeeze()]), PLANES),
    "multi-scale": lambda: (two_levels(), (2, 4, 4)),
}
FLOWS = {
    "Real NVP in the plane": lambda: realnvp_2d(4, 8),
    "Real NVP": lambda: realnvp((1, 8, 8), 2, 4),
    "Real NVP, one level, colours": lambda: realnvp((3, 4, 4), 1, 4),
    "Glow": lambda: glow((1, 8, 8), 2, 2, 4),
    "Glow, three levels": lambda: glow((2, 8, 8), 3, 1, 4),
}


def lively(module: nn.Module, noise: float = 0.15) -> nn.Module:
    """In float64, away from the identity, and started: actnorm keeps the numbers it is given."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return module


def slogdet(function, x: torch.Tensor) -> torch.Tensor:
    """log |det ∂f(x)/∂x| of each example, from the dense Jacobian."""
    dims = x[0].numel()
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda one: function(one.unsqueeze(0))[0].flatten(), row)
            .reshape(dims, dims)
            .slogdet()
            .logabsdet
            for row in x
        ]
    )


def inputs(shape, n=3):
    return torch.rand(n, *shape, dtype=torch.float64) * 1.9 - 0.95  # inside the range of grey values


@pytest.mark.parametrize("name", LAYERS)
def test_logdet_of_a_layer_is_its_jacobians_in_both_directions(name):
    layer, shape = LAYERS[name]()
    layer, x = lively(layer), inputs(shape)
    z, logdet = layer(x)
    assert logdet.shape == (3,)
    torch.testing.assert_close(logdet, slogdet(lambda x: layer(x)[0], x), rtol=1e-9, atol=1e-9)
    back, inverse_logdet = layer.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_logdet, slogdet(lambda z: layer.inverse(z)[0], z.detach()), rtol=1e-9, atol=1e-9)
    if name not in ("squeeze", "flatten"):
        assert logdet.abs().min() > 1e-3  # something to get wrong


@pytest.mark.parametrize("name", FLOWS)
def test_logdet_of_a_flow_is_its_jacobians_in_both_directions(name):
    flow = lively(FLOWS[name]())
    x = inputs(flow.shape, 2)
    z, logdet = flow.encode(x)
    assert z.shape == (2, flow.dims)
    torch.testing.assert_close(logdet, slogdet(lambda x: flow.encode(x)[0], x), rtol=1e-8, atol=1e-8)
    back, inverse_logdet = flow.layers.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        inverse_logdet, slogdet(lambda z: flow.layers.inverse(z)[0], z.detach()), rtol=1e-8, atol=1e-8
    )
    want = torch.distributions.Normal(0, 1).log_prob(z).sum(1) + logdet
    torch.testing.assert_close(flow.log_prob(x), want)
    torch.testing.assert_close(flow.loss(x), -want.mean() / flow.dims)


@pytest.mark.parametrize("name", FLOWS)
def test_inverse_undoes_forward_in_float32(name):
    flow = lively(FLOWS[name](), 0.05).float()
    x = inputs(flow.shape, 4).float()
    torch.testing.assert_close(flow.decode(flow.encode(x)[0]), x, rtol=0, atol=1e-5)

"""MaceModel's energies -> TorchScript modules: readouts of all layers and the ZBL pair repulsion, with gradients."""

import torch
from torch import Tensor

from mdplugin.model import NodeMap, Perceptron, Zbl
from mdplugin.network_layers import Affine, pad_channels
from mdplugin.precision import Precision


class Readout(torch.nn.Module):
    """Energy of every node from all B, and its gradient."""

    def __init__(self, linear: NodeMap, perceptron: Perceptron | None, precision: Precision):
        super().__init__()
        dtype, arithmetic = precision.dtype, precision.format("readout")
        self.linear = Affine(linear, dtype, arithmetic)
        self.has_perceptron = perceptron is not None
        self.hidden = Affine(perceptron.hidden if perceptron else linear, dtype, arithmetic)
        net = perceptron or Perceptron(
            linear, "identity", 1.0, None, None, torch.zeros(1, dtype=torch.float64), 0.0
        )
        self.gate = net.gate
        self.gate_scale = net.gate_scale
        self.has_middle = net.middle is not None
        width, padded = len(net.output), pad_channels(len(net.output))
        output, middle, bias = (
            torch.zeros(shape, dtype=torch.float64) for shape in (padded, (padded, padded), padded)
        )
        output[:width] = net.output
        if net.middle is not None:
            middle[:width, :width], bias[:width] = net.middle, net.middle_bias
        self.output: Tensor = output.to(dtype)
        self.middle: Tensor = middle.to(dtype)
        self.middle_bias: Tensor = bias.to(dtype)
        self.output_bias = net.output_bias

    def forward(
        self, B: list[list[Tensor]], gB: list[list[Tensor]], species: Tensor, groups: list[Tensor]
    ) -> Tensor:
        """Energy (n,) in units of the scale; adds its gradient to `gB`."""
        energy = self.linear(B, species, groups)[0]
        one = torch.zeros_like(energy)
        one[:, :, 0] = 1.0
        self.linear.reverse([one], gB, groups)
        result = energy[:, 0, 0]
        if self.has_perceptron:
            x = self.hidden(B, species, groups)[0]
            y, slope = self.open(x)
            if self.has_middle:
                y2, slope2 = self.open(y @ self.middle + self.middle_bias)
                result = result + (y2[:, 0] @ self.output + self.output_bias)
                gx = ((self.output * slope2) @ self.middle.t()) * slope
            else:
                result = result + (y[:, 0] @ self.output + self.output_bias)
                gx = self.output * slope
            self.hidden.reverse([gx.contiguous()], gB, groups)
        return result

    def open(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gate and its derivative."""
        if self.gate == "silu":
            s = torch.sigmoid(x)
            return self.gate_scale * (x * s), self.gate_scale * (s * (1.0 + x * (1.0 - s)))
        if self.gate == "tanh":
            t = torch.tanh(x)
            return self.gate_scale * t, self.gate_scale * (1.0 - t * t)
        if self.gate == "abs":
            return self.gate_scale * torch.abs(x), self.gate_scale * torch.sign(x)
        return self.gate_scale * x, self.gate_scale * torch.ones_like(x)


class PairRepulsion(torch.nn.Module):
    """Half of the ZBL energy of every edge (eV / scale) and its derivative, float64 (reference.py: zbl)."""

    def __init__(self, zbl: Zbl):
        super().__init__()
        self.amplitude: Tensor = zbl.amplitude.clone()
        self.screening: Tensor = zbl.screening.clone()
        self.r_cut: Tensor = zbl.r_cut.clone()
        self.coefficients: Tensor = zbl.coefficients.clone()
        self.decays: Tensor = zbl.decays.clone()
        self.p = zbl.p

    def forward(self, r: Tensor, senders: Tensor, receivers: Tensor) -> tuple[Tensor, Tensor]:
        """(n_edges,) each."""
        decays = self.decays / self.screening[senders, receivers][:, None]
        waves = self.coefficients * torch.exp(-decays * r[:, None])
        phi, dphi = waves.sum(-1), -(decays * waves).sum(-1)
        p, r_cut = float(self.p), self.r_cut[senders, receivers]
        x = r / r_cut
        inside = (x < 1.0).to(r.dtype)
        f = inside * (
            1.0 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
        )
        df = inside * -p * (p + 1) * (p + 2) / 2 * x ** (p - 1) * (1.0 - x) ** 2 / r_cut
        v = self.amplitude[senders, receivers] / r
        return v * phi * f, v * (dphi * f + phi * df - phi * f / r)


def no_repulsion(n: int) -> Zbl:
    """A repulsion of zero between n species: TorchScript wants the module even where it is not called."""
    table = torch.ones((n, n), dtype=torch.float64)
    return Zbl(
        table, table, table, torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 6
    )

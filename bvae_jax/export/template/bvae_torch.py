"""Encoder and decoder of a run of bvae_jax in PyTorch; needs torch and safetensors, no JAX.

vae = bvae_torch.load("model.safetensors")
mean, logvar = vae.encode(images)  # [n, channels, height, width] in [0, 1] -> [n, latent] each
pictures = vae.decode(mean)  # [n, latent] -> [n, channels, height, width] in [0, 1]
Of an autoencoder, which has no log-variances, encode gives the codes alone.
"""

# pyright: reportMissingImports=false
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F


class VAE(nn.Module):
    def __init__(self, weights: dict[str, Tensor], config: dict, image_shape: list, points=False):
        super().__init__()
        self.points = points
        self.network, self.resnet = config["network"], config["network"] == "resnet"
        self.sides, self.mean = image_shape[:2], MEANS.get(config["likelihood"], torch.sigmoid)
        axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # in JAX [in, out] and [y, x, in, out]
        w = {n.replace(".", "/"): x.permute(axes[x.ndim]) for n, x in weights.items() if x.ndim}
        self.weights = nn.ParameterDict(w)

    def encode(self, h: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        for layer in self.layers("encoder/Conv_"):
            h = self.conv(h, layer)
        for number, layer in enumerate(self.layers("encoder/ConvDown_")):
            h = self.conv(h, layer, stride=2)
            h = self.block(h, f"encoder/ResidualBlock_{number}") if self.resnet else F.relu(h)
        h = (self.norm(h, "encoder/NormRelu_0") if self.resnet else h).movedim(1, 3).flatten(1)
        for layer in self.layers("encoder/Dense_"):
            h = F.relu(F.linear(h, *self.of(layer)))
        mean, logvar = (F.linear(h, *self.of(f"encoder/head/{n}")) for n in ("mean", "logvar"))
        if "codebook" in self.weights:  # [value, latent]: the nearest value of each latent
            values = self.weights["codebook"]
            mean = values.gather(0, (mean - values[:, None]).abs().argmin(0))
        return mean if self.points else (mean, logvar)

    def decode(self, z: Tensor) -> Tensor:
        sides, h = [self.sides], z
        denses, ups, convs = (self.layers(f"decoder/{n}_") for n in ("Dense", "ConvUp", "Conv"))
        for _ in ups:
            sides.append([(side + 1) // 2 for side in sides[-1]])
        if self.network in ("small", "spatial_broadcast"):  # z, x and y at every place
            y, x = (torch.linspace(-1, 1, side).to(z) for side in sides[-1])
            xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(z.shape[0], -1, -1, -1)
            h = torch.cat([z[:, None, None].expand(-1, *sides[-1], -1), xy], dim=3)
        for layer in denses:
            h = F.linear(h, *self.of(layer))
            if layer != denses[-1] or self.network not in ("mlp", "conv128", "resnet"):
                h = torch.tanh(h) if self.network == "mlp" else F.relu(h)
        h = (h if h.ndim == 4 else h.unflatten(1, (*sides[-1], -1))).movedim(3, 1)
        for number, layer in enumerate(ups):
            h = self.block(h, f"decoder/ResidualBlock_{number}") if self.resnet else h
            height, width = sides[-2 - number]
            h = F.conv_transpose2d(h, *self.of(layer), 2, 1)[:, :, :height, :width]
            h = h if self.resnet or layer == ups[-1] else F.relu(h)
        h = self.norm(h, "decoder/NormRelu_0") if self.resnet else h
        for layer in convs:
            h = self.conv(h, layer) if layer == convs[-1] else F.relu(self.conv(h, layer))
        return self.mean(h)

    def layers(self, start: str) -> list[str]:
        return [f"{start}{i}" for i in range(99) if f"{start}{i}/kernel" in self.weights]

    def of(self, layer: str, first: str = "kernel") -> tuple[Tensor, Tensor]:
        return self.weights[f"{layer}/{first}"], self.weights[f"{layer}/bias"]

    def conv(self, h: Tensor, layer: str, stride: int = 1) -> Tensor:
        kernel, bias = self.of(layer)
        h = F.pad(h, (0, h.shape[3] % stride, 0, h.shape[2] % stride))  # an odd side is made even
        return F.conv2d(h, kernel, bias, stride, (kernel.shape[3] - stride) // 2)

    def norm(self, h: Tensor, layer: str) -> Tensor:
        return F.relu(F.group_norm(h, 8, *self.of(f"{layer}/norm", "scale"), eps=1e-6))

    def block(self, x: Tensor, layer: str) -> Tensor:
        h = self.conv(self.norm(x, f"{layer}/NormRelu_0"), f"{layer}/Conv_0")
        return x + self.conv(self.norm(h, f"{layer}/NormRelu_1"), f"{layer}/Conv_1")


def continuous_bernoulli(t: Tensor) -> Tensor:
    near = t.abs() < 0.5  # there a series, for the formula has no digits
    x = torch.where(near, 1.0, t)
    return torch.where(near, 0.5 + t / 12 - t**3 / 720 + t**5 / 30240, -1 / torch.expm1(-x) - 1 / x)


def logistic_mixture(decoded: Tensor) -> Tensor:  # of ten with their tails put on 0 and 1
    weights, rest = decoded[:, :10].softmax(dim=1), decoded[:, 10:]
    channels = 3 if rest.shape[1] == 90 else rest.shape[1] // 20
    of = rest.unflatten(1, (-1, channels, 10))  # means, log scales, of three channels coefficients
    means = of[:, 0] + torch.linspace(-0.9, 0.9, 10).to(decoded)[:, None, None]
    scales = (of[:, 1] + math.log(0.1)).clamp(-7, 7).exp()
    on = of[:, 2].tanh().unbind(1) if channels == 3 else ()  # green on red, blue on red and green
    pixels = []
    for i in range(channels):
        before = zip((on[:0], on[:1], on[1:], ())[min(i, 3)], pixels, strict=False)
        mean, scale = means[:, i] + sum(x * pixel for x, pixel in before), scales[:, i]
        high, low = (F.softplus((mean + side) / scale) for side in (1, -1))
        pixels.append(scale * (high - low) - 1)
    return (0.5 + 0.5 * (weights[:, None] * torch.stack(pixels, dim=1)).sum(dim=2)).clamp(0, 1)


NETS = ["burgess", "conv", "conv128", "locatello", "mlp", "resnet", "small", "spatial_broadcast"]
LOGISTIC = ["bernoulli", "gaussian", "laplace", "optimal_sigma_vae", "sigma_vae"]
MEANS = {"continuous_bernoulli": continuous_bernoulli, "logistic_mixture": logistic_mixture}


def load(path: str | Path) -> VAE:
    file = Path(path, "model.safetensors") if Path(path).is_dir() else path
    with safe_open(file, "pt") as opened:
        about = opened.metadata() or {}
        weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    if about.get("format") != "bvae_jax":
        raise ValueError(f"{file} holds no weights of bvae_jax.")
    config = json.loads(about["config"])
    used, known = {config["network"], config["likelihood"]}, {*NETS, *LOGISTIC, *MEANS}
    if used - known:
        raise ValueError(f"{file} uses {used - known}: wanted some of {sorted(known)}.")
    shape, points = json.loads(about["image_shape"]), about.get("posterior") == "none"
    return VAE(weights, config, shape, points).eval()

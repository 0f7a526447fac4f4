"""The same network, loss and optimizer in PyTorch, written plainly and well.

It imports nothing of the package but what its worker needs: its process is PyTorch's alone.
"""

# pyright: reportMissingImports=false, reportInvalidTypeForm=false
# PyTorch is there only where the extra `bench` is installed.
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F

from benchmarks.worker import Task

Images = Float[torch.Tensor, "batch channels height width"]
Latents = Float[torch.Tensor, "batch latent"]

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "conv": lambda i, o, side: nn.Conv2d(i, o, side, stride=2, padding=(side - 2) // 2),
    "up": lambda i, o, side: nn.ConvTranspose2d(i, o, side, stride=2, padding=(side - 2) // 2),
    "dense": nn.Linear,
    "relu": nn.ReLU,
    "flatten": nn.Flatten,
    "unflatten": lambda *shape: nn.Unflatten(1, shape),
}


class VAE(nn.Module):
    """Encoder and decoder from a table of layers (see `architecture`), and the beta-VAE's loss."""

    def __init__(self, layers: Mapping[str, Any]):
        super().__init__()
        self.encoder = nn.Sequential(*(LAYERS[kind](*of) for kind, of in layers["encoder"]))
        self.decoder = nn.Sequential(*(LAYERS[kind](*of) for kind, of in layers["decoder"]))

    def forward(self, images: Images, noise: Latents, beta: float) -> Float[torch.Tensor, ""]:
        """-E[log p(x|z)] + beta KL for Bernoulli pixels, nats per image, mean over the batch."""
        mean, logvar = self.encoder(images).float().chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * noise
        logits = self.decoder(z).float()
        nll = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        kl = 0.5 * torch.sum(mean.square() + torch.expm1(logvar) - logvar)
        return (nll + beta * kl) / len(images)


def train(layers: Mapping[str, Any], batch_size: int, chunk: int, mode: str, **settings) -> Task:
    """Training steps on one batch that is on the device already."""
    model, images, autocast = _begin(layers, batch_size, **settings)
    latents, device = layers["decoder"][0][1][0], images.device
    graph = mode == "cudagraph"
    optimizer = torch.optim.Adam(model.parameters(), fused=True, capturable=graph)
    loss = torch.compile(model) if mode == "compile" else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        noise = torch.randn(len(images), latents, device=device)
        with autocast():
            value = loss(images, noise, 4.0)
        value.backward()
        optimizer.step()

    step = _captured(step) if graph else step

    def run(pieces: int) -> None:
        for _ in range(pieces * chunk):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    parameters = sum(p.numel() for p in model.parameters())
    return Task(run, chunk, lambda: _memory(device) | {"parameters": parameters})


def encode(layers: Mapping[str, Any], batch_size: int, chunk: int, mode: str, **settings) -> Task:
    """Posteriors of one batch that is on the device already, copied to the host."""
    batch = 4096 if torch.cuda.is_available() else 128
    model, images, autocast = _begin(layers, batch, **settings)
    encoder = torch.compile(model.encoder) if mode == "compile" else model.encoder

    @torch.inference_mode()
    def codes() -> torch.Tensor:
        with autocast():
            return encoder(images)

    call = _captured(codes) if mode == "cudagraph" else codes

    def run(pieces: int) -> None:
        for _ in range(pieces):
            call().float().cpu()

    return Task(run, batch, lambda: _memory(images.device))


def _begin(
    layers: Mapping[str, Any], batch: int, image_shape: Sequence[int], precision: str, cores: int
) -> tuple[VAE, Images, Callable]:
    """The model and a batch on the device, and what makes the arithmetic that of `precision`."""
    torch.manual_seed(0)
    torch.set_num_threads(cores)
    tf32 = precision == "tensorfloat32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = VAE(layers).to(device).to(memory_format=torch.channels_last)  # pyright: ignore
    height, width, channels = image_shape
    images = (torch.rand(batch, channels, height, width) > 0.5).float()
    images = images.to(device, memory_format=torch.channels_last)
    low = precision == "bfloat16"
    return model, images, lambda: torch.autocast(device.type, torch.bfloat16, enabled=low)


def _captured(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same as one CUDA graph, which is launched as a whole."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is allocated lazily must be there before the capture
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def _memory(device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return {}
    return {"peak_device_bytes": torch.cuda.max_memory_allocated()}

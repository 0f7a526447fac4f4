"""The same network, loss and optimizer in PyTorch, written plainly and well.

It imports nothing of the package but what its worker needs: its process is PyTorch's alone.
"""

# pyright: reportMissingImports=false, reportInvalidTypeForm=false
# PyTorch is there only where the extra `bench` is installed.
from collections.abc import Callable, Mapping
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
    "tanh": nn.Tanh,
    "flatten": nn.Flatten,
    "unflatten": lambda *shape: nn.Unflatten(1, shape),
}


class VAE(nn.Module):
    """Encoder and decoder from a table of layers (see `architecture`), and the beta-VAE's loss."""

    def __init__(self, layers: Mapping[str, Any]):
        super().__init__()
        self.encoder = nn.Sequential(*(LAYERS[kind](*of) for kind, of in layers["encoder"]))
        self.decoder = nn.Sequential(*(LAYERS[kind](*of) for kind, of in layers["decoder"]))
        for module in self.modules():  # weights are uniform on +-1/sqrt(fan_in) already
            if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if layers["glorot"]:
                nn.init.xavier_uniform_(module.weight)

    def forward(self, images: Images, noise: Latents, beta: float) -> Float[torch.Tensor, ""]:
        """-E[log p(x|z)] + beta KL for Bernoulli pixels, nats per image, mean over the batch."""
        mean, logvar = self.encoder(images).float().chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * noise
        logits = self.decoder(z).float()
        nll = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        kl = 0.5 * torch.sum(mean.square() + torch.expm1(logvar) - logvar)
        return (nll + beta * kl) / len(images)


def torch_train(options: Mapping[str, Any]) -> Task:
    """Training steps on one batch that is on the device already."""
    device, autocast = _prepare(options)
    model, images = _model(options, device), _images(options, options["batch_size"], device)
    latents = options["layers"]["decoder"][0][1][0]
    graph = options["mode"] == "cudagraph"
    optimizer = torch.optim.Adam(
        model.parameters(), lr=options["learning_rate"], fused=True, capturable=graph
    )
    loss = _compiled(model, options["mode"])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        noise = torch.randn(len(images), latents, device=device)
        with autocast():
            value = loss(images, noise, 4.0)
        value.backward()
        optimizer.step()

    step = _captured(step) if graph else step

    def run(pieces: int) -> None:
        for _ in range(pieces * options["chunk"]):
            step()
        _wait(device)

    parameters = sum(p.numel() for p in model.parameters())
    return Task(run, options["chunk"], lambda: _memory(device) | {"parameters": parameters})


def torch_encode(options: Mapping[str, Any]) -> Task:
    """Posteriors of one batch that is on the device already, copied to the host."""
    device, autocast = _prepare(options)
    batch = 128 if device.type == "cpu" else 4096
    model, images = _model(options, device), _images(options, batch, device)
    encoder = _compiled(model.encoder, options["mode"])

    @torch.inference_mode()
    def encode() -> torch.Tensor:
        with autocast():
            return encoder(images)

    call = _captured(encode) if options["mode"] == "cudagraph" else encode

    def run(pieces: int) -> None:
        for _ in range(pieces):
            call().float().cpu()

    return Task(run, batch, lambda: _memory(device))


def _prepare(options: Mapping[str, Any]) -> tuple[torch.device, Callable]:
    """The device, and what makes its arithmetic that of `precision`."""
    torch.manual_seed(0)
    torch.set_num_threads(options["cores"])
    tf32 = options["precision"] == "tensorfloat32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    low = options["precision"] == "bfloat16"
    return device, lambda: torch.autocast(device.type, torch.bfloat16, enabled=low)


def _model(options: Mapping[str, Any], device: torch.device) -> VAE:
    model = VAE(options["layers"]).to(device)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore


def _images(options: Mapping[str, Any], batch: int, device: torch.device) -> Images:
    images = (torch.rand(batch, *options["image"]) > 0.5).float()
    return images.to(device, memory_format=torch.channels_last)


def _compiled(module: nn.Module, mode: str) -> Callable:
    if mode == "compile":
        return torch.compile(module)
    return torch.compile(module, mode=mode) if mode == "reduce-overhead" else module


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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _memory(device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return {}
    return {"peak_device_bytes": torch.cuda.max_memory_allocated()}

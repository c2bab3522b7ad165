"""The PyTorch contestants: the same training, to be timed beside ours.

A network, the loss, AdamW and the augmentation of the other modules, in two ways:
all of it on whole batches, which is the fastest plain PyTorch, and as the original does
it, image by image and with noise from NumPy. Maps are NCHW in channels-last memory. The
batches of several seeds are trained as one, see `torch_networks`.
"""

import functools
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from experiments.benchmarks.torch_networks import NETWORKS
from experiments.benchmarks.torch_noise import make_regularizer
from experiments.benchmarks.workers import (
    Prepared,
    load_dataset,
    peak_memory,
    time_steps,
)
from experiments.data.dataset import Dataset

try:
    import torch
except ImportError:  # it is an extra, and only a worker that needs it runs any of this
    pass

BATCH_SIZE = 64
PADDING = 4
MAX_JITTER = 0.2
GREY = (0.299, 0.587, 0.114)
# Every order of brightness (0), contrast (1) and saturation (2).
ORDERS = tuple(itertools.permutations(range(3)))


# Augmentation, on whole batches


def pad(images: Any) -> Any:
    """Puts black around images `[N, H, W, C]`, for `flip_and_crop`."""
    return torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))


def flip_and_crop(padded: Any, batch: Any) -> Any:
    """Takes a batch from padded images, each mirrored and shifted in its own way.

    Args:
        padded: uint8 `[N, H + 8, W + 8, C]`, see `pad`.
        batch: int64 `[n]`, which images.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    num, device = len(batch), padded.device
    height, width = (size - 2 * PADDING for size in padded.shape[1:3])
    starts = torch.randint(0, 2 * PADDING + 1, (2, num, 1), device=device)
    flips = torch.rand(num, 1, device=device) < 0.5
    rows = starts[0] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = starts[1] + torch.where(flips, width - 1 - columns, columns)
    return padded[batch[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_jitter(images: Any, order: tuple[int, ...]) -> Any:
    """Changes brightness, contrast and saturation of every image by U(0.8, 1.2).

    Args:
        images: `[N, H, W, 3]` in [0, 1].
        order: of the three (0, 1, 2), for the whole batch.

    Returns:
        The same; see `jitter`.
    """
    factors = torch.empty(3, len(images), 1, 1, 1, device=images.device)
    return jitter(images, factors.uniform_(1 - MAX_JITTER, 1 + MAX_JITTER), order)


def jitter(images: Any, factors: Any, order: tuple[int, ...]) -> Any:
    """Blends images with black, mean grey and grey, clipped to [0, 1] after each.

    Args:
        images: `[N, H, W, 3]` in [0, 1].
        factors: `[3, N, 1, 1, 1]` of brightness, contrast and saturation.
        order: which of the three (0, 1, 2) comes first, second, third.
    """
    weights = torch.tensor(GREY, device=images.device)
    for kind in order:
        if kind == 0:
            images = images * factors[0]
        else:
            base = (images @ weights)[..., None]
            if kind == 1:
                base = base.mean((1, 2, 3), keepdim=True)
            images = torch.lerp(base, images, factors[kind])
        images = images.clamp(0, 1)
    return images


def normalize(images: Any) -> Any:
    """From `[N, H, W, C]` in [0, 1] to `[N, C, H, W]` in [-1, 1], channels last."""
    return ((images - 0.5) / 0.5).permute(0, 3, 1, 2)


def group(images: Any, num_seeds: int) -> Any:
    """From `[S * N, C, H, W]`, seed by seed, to `[N, S * C, H, W]`, channels last."""
    images = images.unflatten(0, (num_seeds, -1)).transpose(0, 1).flatten(1, 2)
    return images.contiguous(memory_format=torch.channels_last)


# Training


def make_optimizer(network: Any) -> Any:
    """Makes AdamW with the experiment's settings, as one fused kernel."""
    return torch.optim.AdamW(
        network.parameters(), lr=1e-3, weight_decay=0.01, fused=True
    )


def learn(optimizer: Any, model: Callable[[Any], Any], images: Any, labels: Any) -> Any:
    """Takes one step of the optimiser.

    Args:
        optimizer: from `make_optimizer`.
        model: from images to logits `[N, num_classes]`, of all seeds.
        images: normalised.
        labels: int64 `[N]`.

    Returns:
        The loss before the step, the sum of all seeds'.
    """
    optimizer.zero_grad()
    logits = model(images).float()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    loss = loss / BATCH_SIZE
    loss.backward()
    optimizer.step()
    return loss.detach()


def make_tensor_step(
    dataset: Dataset,
    model: Callable[[Any], Any],
    optimizer: Any,
    device: str,
    num_seeds: int = 1,
    mode: str | None = None,
) -> Callable[[], Any]:
    """Makes a function that trains for one step on a whole batch, and returns the loss.

    Args:
        dataset: its training images are put on the device.
        model: from images `[N, S * C, H, W]` to logits, on the device.
        optimizer: of its parameters, from `make_optimizer`.
        device: "cpu" or "cuda".
        num_seeds: S; each has batches of its own.
        mode: of torch.compile, which makes programs of it; None for none.
    """
    padded = pad(torch.tensor(dataset.train_images, device=device)).contiguous()
    labels = torch.tensor(dataset.train_labels, dtype=torch.int64, device=device)
    colour = random_jitter
    if mode is not None:
        model, colour = (
            torch.compile(each, dynamic=False, mode=mode) for each in (model, colour)
        )

    def step(batch: Any, order: tuple[int, ...]) -> Any:
        if mode is not None:
            # A CUDA graph may write where the last step's did.
            torch.compiler.cudagraph_mark_step_begin()
        images = colour(flip_and_crop(padded, batch).float() / 255, order)
        images = group(normalize(images), num_seeds)
        return learn(optimizer, model, images, labels[batch])

    if mode is not None:
        for order in ORDERS:  # a program for each
            step(torch.arange(BATCH_SIZE, device=device).repeat(num_seeds), order)
    batches = shuffled_batches(len(labels), device, num_seeds)
    orders = np.random.default_rng(0)
    return lambda: step(next(batches), ORDERS[orders.integers(len(ORDERS))])


def shuffled_batches(num_images: int, device: str, num_seeds: int = 1) -> Iterator[Any]:
    """Yields indices int64 `[S * BATCH_SIZE]` for ever, whole batches only."""
    last = num_images - num_images % BATCH_SIZE
    while True:
        orders = [torch.randperm(num_images, device=device) for _ in range(num_seeds)]
        batches = [order[:last].view(-1, BATCH_SIZE) for order in orders]
        yield from torch.cat(batches, dim=1)


def make_loader_step(
    dataset: Dataset, model: Callable[[Any], Any], optimizer: Any, device: str
) -> Callable[[], Any]:
    """Makes the same as the original has it: a DataLoader, and PIL image by image."""
    loader = torch.utils.data.DataLoader(
        range(len(dataset.train_labels)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        collate_fn=functools.partial(transform_batch, dataset),
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step() -> Any:
        images, labels = (each.to(device) for each in next(batches))
        return learn(optimizer, model, images, labels)

    return step


def transform_batch(dataset: Dataset, batch: list[int]) -> tuple[Any, Any]:
    """Returns images float32 `[n, C, H, W]` in [-1, 1] and labels int64 `[n]`."""
    images = torch.stack([transform(dataset.train_images[index]) for index in batch])
    return images, torch.tensor(dataset.train_labels[batch], dtype=torch.int64)


def transform(image: np.ndarray) -> Any:
    """Flips, crops and colours one image, uint8 `[H, W, 3]`, with PIL."""
    from PIL import Image, ImageEnhance, ImageOps

    picture = Image.fromarray(image)
    if torch.rand(()) < 0.5:
        picture = ImageOps.mirror(picture)
    width, height = picture.size
    left, top = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
    picture = ImageOps.expand(picture, PADDING)
    picture = picture.crop((left, top, left + width, top + height))
    enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    factors = torch.empty(3).uniform_(1 - MAX_JITTER, 1 + MAX_JITTER).tolist()
    for kind in torch.randperm(3).tolist():
        picture = enhancers[kind](picture).enhance(factors[kind])
    pixels = torch.from_numpy(np.asarray(picture, np.float32) / 255)
    return ((pixels - 0.5) / 0.5).permute(2, 0, 1)


# As a worker


def prepare(
    folder: str,
    reg: str,
    model: str,
    strength: float,
    num_threads: int,
    dtype: str = "float32",
    num_seeds: int = 1,
    pipeline: str = "tensors",
    noise: str = "fresh",
    mode: str | None = None,
) -> Prepared:
    """Prepares training for a worker.

    Args:
        folder: see `workers.load_dataset`.
        reg: see `make_regularizer`.
        model: a name in `torch_networks.NETWORKS`.
        strength: see `make_regularizer`.
        num_threads: of PyTorch on a CPU.
        dtype: of the computation; parameters are float32.
        num_seeds: networks side by side, as one.
        pipeline: "tensors" or "loader", which is of one network.
        noise: see `make_regularizer`.
        mode: see `make_tensor_step`.
    """
    # A compiler that remembers nothing, and leaves no processes behind.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=folder)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    np.random.seed(0)
    # What JAX does on a GPU unless it is told otherwise.
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = load_dataset(folder)
    image_shape, kind = dataset.train_images.shape[1:], NETWORKS[model]
    network = kind.make(image_shape, len(dataset.class_names), num_seeds).to(device)
    regularize = make_regularizer(
        reg,
        strength,
        channels=kind.list_maps(image_shape),
        noise=noise,
        num_seeds=num_seeds,
        dtype=dtype,
        device=device,
    )

    def predict(images: Any) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return kind.predict(network, images, regularize)

    optimizer = make_optimizer(network)
    begin = time.perf_counter()
    if pipeline == "loader":
        step = make_loader_step(dataset, predict, optimizer, device)
    else:
        step = make_tensor_step(dataset, predict, optimizer, device, num_seeds, mode)
    compile_seconds = time.perf_counter() - begin if mode else 0.0

    def run(num_steps: int) -> tuple[float, float]:
        # Reading the loss waits for the device.
        seconds = time_steps(step, num_steps, wait=float)
        return num_steps * num_seeds * BATCH_SIZE, seconds

    def peak_bytes() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()

    return Prepared(run, compile_seconds, peak_bytes, {"torch": torch.__version__})

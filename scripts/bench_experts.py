"""Embedding files and training on them: from factors, and the way the papers' code does it (whole updates, files read again in every epoch)."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.probex.batched_factors import Factors, stack_layers
from loradex.retrieval.probex.objective import Contrast, ProbeTraining
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet
from loradex.retrieval.probex.train import train_probes
from loradex.retrieval.training.labelled_loras import pack

LAYER: Final = "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_q"
SIDE, RANK, BATCH, OURS = 1280, 16, 128, 64
CLASSES, TEXT = 200, 768


def official_net() -> nn.ModuleDict:
    """ProbeX's modules as the official code has them."""
    return nn.ModuleDict(
        {
            "probes": nn.Linear(128, SIDE, bias=False),
            "proj": nn.Linear(SIDE, 128, bias=False),
            "encoder": nn.Linear(128 * 128, 512),
        }
    )


def official_forward(net: nn.ModuleDict, x: Tensor) -> Tensor:
    """ProbeX on whole updates (models, out, in), as the official code does it."""
    responses = net["proj"]((x @ net["probes"].get_parameter("weight")).transpose(1, 2)).relu()
    return F.normalize(net["encoder"](responses.reshape(len(x), -1)), dim=-1)


def read_pairs(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Both factors of the layer, by safetensors."""
    ups, downs = [], []
    for path in paths:
        with safe_open(path, "pt") as file:
            downs.append(file.get_tensor(f"unet.{LAYER}.lora.down.weight").float())
            ups.append(file.get_tensor(f"unet.{LAYER}.lora.up.weight").float())
    return torch.stack(ups), torch.stack(downs)


def batches(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    """Files, some at a time."""
    return (paths[start : start + size] for start in range(0, len(paths), size))


def embed_as_published(paths: Sequence[Path], net: nn.ModuleDict) -> None:
    """Two tensors a file, dense updates, 128 at a time."""
    with torch.inference_mode():
        for some in batches(paths, BATCH):
            up, down = read_pairs(some)
            official_forward(net, up @ down)


def embed_ours(paths: Sequence[Path], net: ProbeNet) -> None:
    """The header, the bytes of one layer, factors."""
    with torch.inference_mode():
        for some in batches(paths, OURS):
            net.encode(stack_layers([LoraFile.open(path).updates([LAYER]) for path in some], [LAYER]))


def our_net() -> ProbeNet:
    """ProbeX in factor form."""
    return ProbeNet({LAYER: (SIDE, SIDE)}, TEXT, ProbeConfig((LAYER,)))


def measured(
    work: Callable[..., None], make: Callable[[], nn.Module], paths: list[Path], warm: int
) -> tuple[float, float]:
    """Seconds and MiB of memory beyond what was there before, of one way to embed files; run in a process of its own."""
    torch.set_num_threads(2)
    net = make()
    for path in paths[:warm]:
        path.read_bytes()
    work(paths[:2], net)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started = memory("VmRSS"), perf_counter()
    work(paths, net)
    return perf_counter() - started, memory("VmHWM") - before


def memory(name: str) -> float:
    """What Linux says of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def alone(
    work: Callable[..., None], make: Callable[[], nn.Module], paths: list[Path], warm: int
) -> tuple[float, float]:
    """``measured`` in a new process, so that each way has its own peak of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (work, make, paths, warm))


def save_lora(path: Path, layers: int, seed: int) -> None:
    """A LoRA of rank 16 in half precision, with the layer and others of its size."""
    torch.manual_seed(seed)
    names = [LAYER, *(f"down_blocks.2.attentions.1.transformer_blocks.{i}.attn1.to_q" for i in range(layers - 1))]
    shapes = {"down": (RANK, SIDE), "up": (SIDE, RANK)}
    save_file(
        {f"unet.{name}.lora.{part}.weight": torch.randn(shape) for name in names for part, shape in shapes.items()},
        path,
    )


def bench_embedding(files: int = 40, uses: int = 25) -> dict[str, float]:
    """1,000 reads of files of 13 MB, warm: models a second and memory, against the papers' way."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.safetensors") for number in range(files)]
        for number, path in enumerate(paths):
            save_lora(path, layers=79, seed=number)
        size = paths[0].stat().st_size
        ours, published = (
            alone(work, make, paths * uses, files)
            for work, make in ((embed_ours, our_net), (embed_as_published, official_net))
        )
    return {
        "models_per_s": files * uses / ours[0],
        "published_models_per_s": files * uses / published[0],
        "times_faster": published[0] / ours[0],
        "memory_mib": ours[1],
        "published_memory_mib": published[1],
        "memory_ratio": published[1] / max(ours[1], 1e-9),
        "file_mb": size / 1e6,
    }


def bench_epoch(files: int = 512) -> dict[str, float]:
    """One epoch of ProbeX on 512 models, batches of 128: factors in memory, against reading every file again and multiplying it out."""
    texts, concepts = torch.randn(CLASSES, 1, TEXT), torch.arange(files) % CLASSES
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.safetensors") for number in range(files)]
        for number, path in enumerate(paths):
            save_lora(path, layers=2, seed=number)
        packed = pack(paths, [LAYER])
        ours = ours_per_epoch(packed, concepts, texts)
        net, head = official_net(), nn.Linear(TEXT, 512)
        optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=2e-3)
        started = perf_counter()
        for rows in torch.randperm(files).split(BATCH):
            up, down = read_pairs([paths[row] for row in rows.tolist()])
            loss = F.cross_entropy(
                official_forward(net, up @ down) @ F.normalize(head(texts[:, 0]), dim=-1).T, concepts[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        published = perf_counter() - started
    return {"epoch_s": ours, "published_epoch_s": published, "times_faster": published / ours}


def ours_per_epoch(packed: dict[str, Factors], concepts: Tensor, texts: Tensor, epochs: int = 4) -> float:
    """Seconds of an epoch, the first left out."""
    ticks = [perf_counter()]
    training = ProbeTraining(epochs=epochs, check_every=1, patience=epochs)
    train_probes(
        packed,
        Contrast(concepts, texts),
        ProbeConfig((LAYER,)),
        training,
        lambda net: 0.0,
        lambda epoch, score: ticks.append(perf_counter()),
    )
    return (ticks[-1] - ticks[1]) / (epochs - 1)

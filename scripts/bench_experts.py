"""Benchmarks of embedding and training for ``scripts.bench``: from factors, and as in the papers' code.

The papers' code multiplies updates out to dense matrices and reads all files again in every epoch.
"""

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
from loradex.retrieval.probex.objective import ContrastiveObjective, ProbeTraining
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet
from loradex.retrieval.probex.train import train_probes
from loradex.retrieval.training.packing import pack_files

LAYER: Final = "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_q"
WIDTH, RANK, PUBLISHED_BATCH, OUR_BATCH = 1280, 16, 128, 64
CLASSES, TEXT_DIM = 200, 768


def official_net() -> nn.ModuleDict:
    """The modules of ProbeX as in the official code."""
    return nn.ModuleDict(
        {
            "probes": nn.Linear(128, WIDTH, bias=False),
            "proj": nn.Linear(WIDTH, 128, bias=False),
            "encoder": nn.Linear(128 * 128, 512),
        }
    )


def official_forward(net: nn.ModuleDict, x: Tensor) -> Tensor:
    """ProbeX on dense updates (models, out, in), as in the official code."""
    responses = net["proj"]((x @ net["probes"].get_parameter("weight")).transpose(1, 2)).relu()
    return F.normalize(net["encoder"](responses.reshape(len(x), -1)), dim=-1)


def read_pairs(paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Both factors of the layer (models, out, rank) and (models, rank, in), read with safetensors."""
    ups, downs = [], []
    for path in paths:
        with safe_open(path, "pt") as file:
            downs.append(file.get_tensor(f"unet.{LAYER}.lora.down.weight").float())
            ups.append(file.get_tensor(f"unet.{LAYER}.lora.up.weight").float())
    return torch.stack(ups), torch.stack(downs)


def batches(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    """Split files into batches."""
    return (paths[start : start + size] for start in range(0, len(paths), size))


def embed_as_published(paths: Sequence[Path], net: nn.ModuleDict) -> None:
    """Embed files as in the papers' code: two tensors a file, dense updates, batches of 128."""
    with torch.inference_mode():
        for batch in batches(paths, PUBLISHED_BATCH):
            up, down = read_pairs(batch)
            official_forward(net, up @ down)


def embed_ours(paths: Sequence[Path], net: ProbeNet) -> None:
    """Embed files as Loradex does: the header and the bytes of one layer, as factors."""
    with torch.inference_mode():
        for batch in batches(paths, OUR_BATCH):
            net.encode(stack_layers([LoraFile.open(path).updates([LAYER]) for path in batch], [LAYER]))


def our_net() -> ProbeNet:
    """ProbeX in factor form."""
    return ProbeNet({LAYER: (WIDTH, WIDTH)}, TEXT_DIM, ProbeConfig((LAYER,)))


def measure_embedding(
    embed: Callable[..., None], make_net: Callable[[], nn.Module], paths: list[Path], cached: int
) -> tuple[float, float]:
    """Seconds, and MiB of additional memory at the peak, to embed files; to be run in a process of its own.

    The first ``cached`` files are read before, so that they are in the system's file cache.
    """
    torch.set_num_threads(2)
    net = make_net()
    for path in paths[:cached]:
        path.read_bytes()
    embed(paths[:2], net)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
    before, started = process_memory_mib("VmRSS"), perf_counter()
    embed(paths, net)
    return perf_counter() - started, process_memory_mib("VmHWM") - before


def process_memory_mib(name: str) -> float:
    """A memory value of this process in MiB, by its name in Linux's ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def measure_in_process(
    embed: Callable[..., None], make_net: Callable[[], nn.Module], paths: list[Path], cached: int
) -> tuple[float, float]:
    """``measure_embedding`` in a new process, so that each call has its own peak of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure_embedding, (embed, make_net, paths, cached))


def save_lora(path: Path, layers: int, seed: int) -> None:
    """Write a LoRA of rank 16 with the layer and others of its size."""
    torch.manual_seed(seed)
    names = [LAYER, *(f"down_blocks.2.attentions.1.transformer_blocks.{i}.attn1.to_q" for i in range(layers - 1))]
    shapes = {"down": (RANK, WIDTH), "up": (WIDTH, RANK)}
    save_file(
        {f"unet.{name}.lora.{part}.weight": torch.randn(shape) for name in names for part, shape in shapes.items()},
        path,
    )


def bench_embedding(files: int = 40, repeats: int = 25) -> dict[str, float]:
    """Embedding 1,000 cached files of 13 MB: models a second and memory, against the papers' code."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.safetensors") for number in range(files)]
        for number, path in enumerate(paths):
            save_lora(path, layers=79, seed=number)
        size = paths[0].stat().st_size
        ours, published = (
            measure_in_process(embed, make_net, paths * repeats, files)
            for embed, make_net in ((embed_ours, our_net), (embed_as_published, official_net))
        )
    return {
        "models_per_s": files * repeats / ours[0],
        "published_models_per_s": files * repeats / published[0],
        "times_faster": published[0] / ours[0],
        "memory_mib": ours[1],
        "published_memory_mib": published[1],
        "memory_ratio": published[1] / max(ours[1], 1e-9),
        "file_mb": size / 1e6,
    }


def bench_epoch(files: int = 512) -> dict[str, float]:
    """One epoch of ProbeX on 512 models in batches of 128: factors in memory, against the papers' code."""
    texts, concepts = torch.randn(CLASSES, 1, TEXT_DIM), torch.arange(files) % CLASSES
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.safetensors") for number in range(files)]
        for number, path in enumerate(paths):
            save_lora(path, layers=2, seed=number)
        packed = pack_files(paths, [LAYER])
        ours = seconds_per_epoch(packed, concepts, texts)
        net, head = official_net(), nn.Linear(TEXT_DIM, 512)
        optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=2e-3)
        started = perf_counter()
        for rows in torch.randperm(files).split(PUBLISHED_BATCH):
            up, down = read_pairs([paths[row] for row in rows.tolist()])
            loss = F.cross_entropy(
                official_forward(net, up @ down) @ F.normalize(head(texts[:, 0]), dim=-1).T, concepts[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        published = perf_counter() - started
    return {"epoch_s": ours, "published_epoch_s": published, "times_faster": published / ours}


def seconds_per_epoch(packed: dict[str, Factors], concepts: Tensor, texts: Tensor, epochs: int = 4) -> float:
    """Mean seconds of an epoch, without the first."""
    epoch_ends = [perf_counter()]
    training = ProbeTraining(epochs=epochs, check_every=1, patience=epochs)
    train_probes(
        packed,
        ContrastiveObjective(concepts, texts),
        ProbeConfig((LAYER,)),
        training,
        lambda net: 0.0,
        lambda epoch, score: epoch_ends.append(perf_counter()),
    )
    return (epoch_ends[-1] - epoch_ends[1]) / (epochs - 1)

"""Packing LoRAs of different ranks into padded factors."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from loradex.retrieval.training.packing import pack_files, packed_bytes

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


def test_packing_pads_ranks(tmp_path: Path) -> None:
    paths, updates = [tmp_path / f"{rank}.safetensors" for rank in (2, 4)], []
    for path, rank in zip(paths, (2, 4), strict=True):
        down, up = torch.randn(rank, 320), torch.randn(320, rank)
        save_file({f"{LAYER}.lora.down.weight": down, f"{LAYER}.lora.up.weight": up}, path)
        updates.append(up @ down)
    (factors,) = pack_files(paths).values()
    assert factors.down.shape == (2, 4, 320)
    assert not factors.down[0, 2:].any()
    for row, update in enumerate(updates):
        torch.testing.assert_close(factors.up[row].float() @ factors.down[row].float(), update, rtol=1e-2, atol=1e-2)


def test_packed_bytes_are_those_of_half_precision_factors() -> None:
    assert packed_bytes((320, 768), 4, 10) == 10 * (4 * 320 + 4 * 768) * 2

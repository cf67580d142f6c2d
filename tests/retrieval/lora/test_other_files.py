"""What people have under the name of a LoRA is named, with what to do about it; quantised factors are never read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileError, FileUnsafe, FileUnsupported
from loradex.retrieval.lora import LoraFile
from tests.retrieval.lora.lora_files import TO_Q, kohya, peft, random_factors

KOHYA = "lora_unet_" + TO_Q.replace(".", "_")
WHOLE = save(kohya(random_factors()))
CUT = len(WHOLE) // 2
SIGNED_IN = "download it again, signed in"


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 151112345\n",
            FileCorrupt,
            "a pointer of Git LFS to a file of 151112345 bytes instead of the file itself; run `git lfs pull`",
        ),
        (b"# xet version 0\nfilesize = 9\n", FileCorrupt, "a pointer of Xet"),
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html><html><head><title>Sign\n in</title>" + b"x" * 4000,
            FileCorrupt,
            rf"a web page \('Sign in'\); {SIGNED_IN}",
        ),
        (b"<html>", FileCorrupt, f"a web page; {SIGNED_IN}"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', FileCorrupt, r"an XML document \('AccessDenied'\)"),
        (b'{"message":"You must be logged in"}', FileCorrupt, r"a JSON document \('You must be logged in'\)"),
        (b'{"err":1{"error": "x"}', FileCorrupt, r"a JSON document \('x'\)"),  # its ninth byte is a header's first
        (b"[1, 2]", FileCorrupt, "a JSON document;"),
        (b"Entry not found", FileCorrupt, f"plain text that begins with 'Entry not found'; {SIGNED_IN}"),
        ("gesperrt: schön\x1b[2J".encode(), FileCorrupt, r"plain text that begins with 'gesperrt: schön\\x1b\[2J'"),
        ("Sign in".encode("utf-16"), FileCorrupt, "plain text that begins with 'Sign in'"),
        (WHOLE[:CUT], FileCorrupt, rf"expected {len(WHOLE)} bytes, found {CUT} \(50%\): the download is cut short"),
        (WHOLE[:60], FileCorrupt, r"header: expected \d+ bytes, found 52 \(\d+%\): the download is cut short"),
        ((640).to_bytes(8, "little") + b'{"a":', FileCorrupt, "header: expected 640 bytes, found 5"),
        (WHOLE + b"more", FileCorrupt, f"expected {len(WHOLE)} bytes, found 4 more: something was appended"),
        (b"", FileCorrupt, "an empty file; download it again"),
        (bytes(4096), FileCorrupt, "zeros at its beginning"),
        (b"PK\x03\x04" + bytes(40), FileUnsafe, "a zip archive, .* could run code; convert it"),
        (b"\x80\x02}q\0.", FileUnsafe, "a pickle, which was not opened as it could run code"),
        (b"\x1f\x8b\x08\0" + bytes(40), FileUnsafe, "gzip data"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(40), FileCorrupt, "a 7z archive; unpack it"),
        (b"lora".ljust(257, b"\0") + b"ustar\0" + bytes(300), FileCorrupt, "a tar archive; unpack it"),
        (b"GGUF\3\0\0\0" + bytes(40), FileCorrupt, "GGUF, a quantised model; name the LoRA that it was made from"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), FileCorrupt, "a PNG picture"),
        (b"\xfe\xdc\0" * 9, FileCorrupt, "no safetensors file: expected a header"),
    ],
)
def test_the_first_bytes_tell_what_a_file_is(raw: bytes, error: type[FileError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    with pytest.raises(error, match=message) as caught:
        LoraFile.open(path)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"emb_params": (8, 768)}, "of 8 vectors for Stable Diffusion 1; it belongs in the folder embeddings"),
        ({"emb_params": (2, 1024)}, "of 2 vectors for Stable Diffusion 2"),
        ({"clip_l": (3, 768), "clip_g": (3, 1280)}, "a textual inversion .* of 3 vectors for SDXL"),
        ({"clip_l": (3, 768), "clip_g": (3, 1280), "t5xxl": (3, 4096)}, "for Stable Diffusion 3"),
        ({"clip_l": (3, 768), "t5": (3, 4096)}, "for Flux.1"),
        ({"<cat-toy>": (768,)}, "a textual inversion .* of 1 vectors"),
        ({"cat-toy": (1, 768)}, "a textual inversion .* of 1 vectors"),
        ({"qwen25_7b": (4, 3584)}, "a textual inversion .* of 4 vectors of widths 3584"),
        (
            {"encoder.down.0.block.0.conv1.weight": (4, 4, 3, 3), "decoder.up.0.block.0.conv1.weight": (4, 4, 3, 3)},
            "a VAE; it belongs in the folder vae",
        ),
        ({"encoder.down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3), "quant_conv.weight": (4, 4, 1, 1)}, "a VAE"),
        (
            {
                "model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
                "first_stage_model.encoder.conv_in.weight": (4, 4, 3, 3),
                "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77),
            },
            "a whole checkpoint; it belongs in the folder checkpoints",
        ),
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9, 3)}, "a diffusion model alone"),
        ({"down_blocks.0.attentions.0.proj_in.weight": (4, 4)}, "a U-Net alone"),
        ({"double_blocks.0.img_attn.qkv.weight": (9, 3)}, "a diffusion transformer alone"),
        ({"control_model.input_blocks.0.0.weight": (4, 4, 3, 3)}, "a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": (4, 4), "down_blocks.0.x.weight": (4, 4)}, "a ControlNet"),
        ({"lora_controlnet": (), "input_blocks.1.1.proj_in.up": (4, 4)}, "a ControlNet"),
        ({"768.0.linear.0.weight": (4, 4)}, "a hypernetwork"),
        ({"image_proj.proj.weight": (4, 4), "ip_adapter.1.to_k_ip.weight": (4, 4)}, "an IP-Adapter"),
        (
            {
                "image_proj.proj.weight": (4, 4),
                "ip_adapter.0.to_q_lora.down.weight": (4, 64),
                "ip_adapter.0.to_q_lora.up.weight": (64, 4),
            },
            "an IP-Adapter",
        ),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}, "a text encoder alone"),
        ({"model.layers.0.self_attn.q_proj.weight": (4, 4)}, "a text encoder alone"),
        ({"encoder.block.0.layer.0.SelfAttention.k.weight": (4, 4)}, "a text encoder alone"),
        ({"down_blocks.0.motion_modules.0.norm.bias": (4,)}, "motion modules"),
        ({f"{KOHYA}.oft_blocks": (4, 8, 8), f"{KOHYA}.alpha": ()}, r"rotation \(OFT or BOFT\) of 1 layers"),
        ({f"{KOHYA}.oft_blocks": (3, 4, 8, 8), f"{KOHYA}.rescale": (96, 1)}, r"rotation \(OFT or BOFT\) of 1 layers"),
        ({f"{KOHYA}.oft_diag": (4, 8, 8)}, r"rotation \(OFT or BOFT\)"),
        ({f"{KOHYA}.oft_R.weight": (4, 28)}, r"rotation \(OFT or BOFT\)"),
        ({f"base_model.model.{TO_Q}.oft_R.default.weight": (4, 28)}, r"rotation \(OFT or BOFT\)"),
        ({f"{TO_Q}.oft_r": (4, 8, 8), f"{TO_Q}.oft_s": (96, 1)}, r"rotation \(OFT or BOFT\) of 1 layers"),
        ({f"{TO_Q}.boft_R": (1, 4, 8, 8), f"{TO_Q}.boft_s": (96, 1)}, r"rotation \(OFT or BOFT\) of 1 layers"),
        ({f"{TO_Q}.ia3_l": (96, 1)}, r"multiplier \(IA3\) of 1 layers"),
        ({f"{TO_Q}.vera_lambda_b": (96,), f"{TO_Q}.vera_lambda_d": (4,)}, "VeRA, a method of PEFT that is no LoRA"),
        ({}, "found no tensors"),
        ({"a.b": (2,)}, "1 tensors such as a.b"),
    ],
)
def test_tensors_tell_what_a_file_is(shapes: dict[str, tuple[int, ...]], message: str, tmp_path: Path) -> None:
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    with pytest.raises(FileUnsupported, match=message) as caught:
        LoraFile.open(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


def in_eight_bits(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}


ONE = torch.ones(1)
BYTES = torch.zeros(4, dtype=torch.uint8)


@pytest.mark.parametrize("down", [f"{KOHYA}.lora_down", f"{TO_Q}.lora_A", f"{TO_Q}.lora_A.default"])
@pytest.mark.parametrize(
    "beside",
    [
        {".scale_weight": ONE},
        {".weight_scale": ONE, ".input_scale": ONE},
        {".weight_scale_inv": torch.ones(1, 1)},
        {".weight.absmax": ONE, ".weight.quant_map": ONE, ".weight.quant_state.bitsandbytes__nf4": BYTES},
        {".SCB": ONE, ".weight_format": BYTES},
        {".weight._scale": ONE},
        {".comfy_quant": BYTES},
        {".scales": ONE, ".qzeros": ONE},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_factors_with_scales_beside_them_are_not_read(beside: dict[str, Tensor], down: str, tmp_path: Path) -> None:
    path, factors = tmp_path / "x.safetensors", random_factors()
    plain = kohya(factors) if down.startswith(KOHYA) else peft(factors, "", down.partition("lora_A")[2])
    save_file(in_eight_bits(plain) | {down + ending: value.clone() for ending, value in beside.items()}, path)
    lora = LoraFile.open(path)
    assert TO_Q not in lora.layers and len(lora.layers) == 2
    assert (
        lora.problems[0] == "quantised factors of 1 layers are not read, as their scales stand beside them or nowhere"
    )
    assert not any("not understood" in line for line in lora.problems)
    of_one = {name: value for name, value in plain.items() if name.startswith(down.partition(".lora_")[0])}
    save_file(of_one | {down + ending: value.clone() for ending, value in beside.items()}, path)
    with pytest.raises(FileUnsupported, match="as plain numbers, found quantised ones, .* save the LoRA in float16"):
        LoraFile.open(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {name: tensor.to(torch.int8) for name, tensor in kohya(random_factors()).items()},
        in_eight_bits(kohya(random_factors())) | {"scaled_fp8": torch.zeros(2)},
        {f"{TO_Q}.lora_{half}.qweight": torch.ones(4, 4, dtype=torch.int32) for half in "AB"},
        {f"{KOHYA}.lokr_w1": torch.ones(4, 4), f"{KOHYA}.lokr_w2": torch.ones(9, 9), f"{KOHYA}.lokr_w1_scale": ONE},
    ],
    ids=["int8", "scaled_fp8", "gptq", "lokr"],
)
def test_whole_numbers_and_files_marked_as_scaled_are_not_read(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(FileUnsupported, match="as plain numbers, found quantised ones"):
        LoraFile.open(tmp_path / "x.safetensors")


def test_eight_bits_without_scales_are_plain_numbers(tmp_path: Path) -> None:
    factors = random_factors()
    save_file(in_eight_bits(kohya(factors)), tmp_path / "x.safetensors")
    down, up = (factor.to(torch.float8_e4m3fn).float() for factor in factors[TO_Q])
    update = LoraFile.open(tmp_path / "x.safetensors").updates([TO_Q])[TO_Q]
    torch.testing.assert_close(update.up @ update.down, up @ down)


def test_a_layer_of_a_lora_with_rotations_beside_it_is_read(tmp_path: Path) -> None:
    other = KOHYA.replace("to_q", "to_v")
    tensors = kohya(random_factors()) | {f"{other}.oft_blocks": torch.ones(2, 3, 3), f"{other}.alpha": torch.ones(())}
    save_file(tensors, tmp_path / "x.safetensors")
    lora = LoraFile.open(tmp_path / "x.safetensors")
    assert len(lora.layers) == 3
    assert lora.problems[0] == "rotation (OFT or BOFT) of 1 layers: needs the base model and is not read"
    assert not any("not understood" in line for line in lora.problems)  # the alpha is the rotation's

"""Step ``clip``: trains the mini-CLIP, an open_clip model, on drawings, captions, and a teacher's word vectors.

The loss is a weighted sum of three: contrastive (picture, caption), the cosine distance of a linear map of the text
embedding to the teacher's vector, and the divergence of the similarities among the words of a batch from the teacher's
(relational distillation).
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from loradex.app.miniature.pipeline import text_hidden_states
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import PICTURE_SIZE, SEED, TEMPLATES, Build, atomic, log, timed
from scripts.miniature.words import captions_of

CONFIG = {
    "model_cfg": {
        "custom_text": True,
        "embed_dim": 256,
        "vision_cfg": {
            "image_size": PICTURE_SIZE,
            "layers": [1, 2, 2, 2],
            "width": 28,
            "head_width": 32,
            "patch_size": None,
        },
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}
TEACHER_DIM = 384


@dataclass(frozen=True, slots=True)
class ClipTraining:
    """Settings of one training phase; each phase continues from the last with a new schedule."""

    name: str
    steps: int
    lr: float
    words: int  # texts for distillation in a step
    word_templates: float  # the share of the lemmas that are put into a template
    restyled: bool = False  # change colours, size and parts of drawings, so that the tower learns things and not styles
    text_only: bool = False  # freeze the picture tower and cache its vectors of restyled drawings
    concepts: int = 256  # distinct concepts in a step, with one drawing and one caption each
    weight_decay: float = 0.05
    warmup: int = 100
    teacher_weight: float = 4.0
    neighbour_weight: float = 1.0
    neighbour_temperature: float = 0.05


PHASES = (
    ClipTraining("plain", steps=1200, lr=2e-3, words=384, word_templates=0.0),
    ClipTraining("restyled", steps=1100, lr=1.5e-3, words=512, word_templates=0.6, restyled=True),
    ClipTraining("words", steps=550, lr=1.2e-3, words=1024, word_templates=0.6, text_only=True),
)


def build_clip(build: Build) -> None:
    """Write ``clip/``, a folder that open_clip's factory loads as ``local-dir:``."""
    folder = build / "clip"
    if (folder / "open_clip_model.safetensors").exists():
        return
    with timed("mini-CLIP"):
        torch.manual_seed(SEED)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=1))
        model = open_clip.create_model(f"local-dir:{folder}")
        to_teacher = nn.Linear(model.text.text_projection.shape[1], TEACHER_DIM)
        for phase in PHASES:
            ClipTrainer(build, model, to_teacher, phase).train()
        save_clip(model, folder)
        (build / "clip.json").write_text(
            json.dumps({"training": [asdict(phase) for phase in PHASES], **evaluate_clip(build)}, indent=1)
        )


def save_clip(model: Any, folder: Path) -> None:
    """Write the weights in half precision under the name that open_clip expects."""
    with atomic(folder / "open_clip_model.safetensors") as path:
        save_file({name: to_half(tensor) for name, tensor in model.state_dict().items() if name != "attn_mask"}, path)


def to_half(tensor: Tensor) -> Tensor:
    """Make a tensor contiguous, and half precision if it is floating."""
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def load_clip(build: Build) -> tuple[Any, Any]:
    """The trained model in evaluation mode, and its tokenizer."""
    name = f"local-dir:{build / 'clip'}"
    return open_clip.create_model(name).eval(), open_clip.get_tokenizer(name)


class ClipTrainer:
    """Trains one phase; resumes from its checkpoint in the build folder."""

    def __init__(self, build: Build, model: Any, to_teacher: nn.Linear, training: ClipTraining) -> None:
        """Read drawings, captions and teacher vectors, and tokenize all captions once."""
        self.model, self.to_teacher, self.training = model, to_teacher, training
        self.checkpoint = build / f"clip-{training.name}.pt"
        pixels, concept, trained_on, concepts = load_pictures(build)
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        self.drawings = [np.flatnonzero((concept == i) & trained_on) for i in range(len(concepts))]
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{build / 'clip'}")
        self.captions = [
            [self.tokenizer([t.format(caption) for t in TEMPLATES]) for caption in captions_of(c)] for c in concepts
        ]
        words = np.load(build / "words.npz")
        self.words = words["texts"]
        self.teacher_vectors = torch.from_numpy(words["vectors"])
        shares = np.array([0.5, 0.25, 0.25]) / np.bincount(words["kinds"])  # lemmas, glosses, captions
        self.probabilities = shares[words["kinds"]]
        self.is_lemma = words["kinds"] == 0
        self.drawing_vectors = self.embed_drawings() if training.text_only else None

    def train(self) -> None:
        """Run all steps, with a checkpoint after every 200."""
        training, model = self.training, self.model
        model.visual.to(memory_format=torch.channels_last)
        model.visual.requires_grad_(not training.text_only)
        parameters = [p for p in (*model.parameters(), *self.to_teacher.parameters()) if p.requires_grad]
        decayed = [p for p in parameters if p.ndim > 1]
        groups = [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=training.lr, betas=(0.9, 0.98), eps=1e-6)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine_with_warmup(step, training.warmup, training.steps)
        )
        parts = {"model": model, "to_teacher": self.to_teacher, "optimizer": optimizer, "schedule": schedule}
        first = resume_training(self.checkpoint, parts)
        for step in range(first, training.steps):
            losses = self.losses(np.random.default_rng((SEED, step)))
            loss = losses[0] + training.teacher_weight * losses[1] + training.neighbour_weight * losses[2]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            model.logit_scale.data.clamp_(max=math.log(100))
            if step % 50 == 0:
                log.info(
                    "mini-CLIP: step %d of %d, contrastive %.3f, teacher %.3f, neighbours %.3f",
                    step,
                    training.steps,
                    *(float(part.detach()) for part in losses),
                )
            if step % 200 == 199:
                save_checkpoint(self.checkpoint, step + 1, parts)

    def losses(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Contrastive, teacher and neighbourhood losses of one random batch."""
        training, model = self.training, self.model
        chosen = rng.choice(len(self.drawings), training.concepts, replace=False)
        drawings = [rng.choice(self.drawings[i]) for i in chosen]
        captions = torch.stack([self.sample_caption(i, rng) for i in chosen])
        rows = rng.choice(len(self.words), training.words, p=self.probabilities)
        tokens = self.tokenizer([self.distillation_text(row, rng) for row in rows])
        # On a CPU, plain attention trains faster.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            picture_vectors = (
                self.embed(drawings, rng)
                if self.drawing_vectors is None
                else self.drawing_vectors[rng.integers(len(self.drawing_vectors)), drawings]
            )
            text_vectors, word_vectors = embed_texts(model.text, captions), embed_texts(model.text, tokens)
        logits = model.logit_scale.exp() * picture_vectors @ text_vectors.T  # (concepts, concepts)
        target = torch.arange(training.concepts)
        contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        teacher_targets = self.teacher_vectors[rows].float()
        teacher = 1 - F.cosine_similarity(self.to_teacher(word_vectors), teacher_targets).mean()
        return contrastive, teacher, neighbour_loss(word_vectors, teacher_targets, training.neighbour_temperature)

    def embed(self, drawings: list[int], rng: np.random.Generator) -> Tensor:
        """Unit vectors (n, 256) of drawings in random variants."""
        pictures = (restyle if self.training.restyled or self.training.text_only else augment)(
            self.pixels[drawings], rng
        )
        return self.model.encode_image(pictures.contiguous(memory_format=torch.channels_last), normalize=True).float()

    @torch.no_grad()
    def embed_drawings(self, variants: int = 4) -> Tensor:
        """Unit vectors (variants, drawings, 256) of all drawings, restyled; only those of training sets are used."""
        self.model.eval()
        rng = np.random.default_rng((SEED, 3))
        rows = torch.arange(len(self.pixels)).split(256)
        vectors = torch.stack([torch.cat([self.embed(part.tolist(), rng) for part in rows]) for _ in range(variants)])
        self.model.train()
        return vectors

    def distillation_text(self, row: int, rng: np.random.Generator) -> str:
        """A text for distillation; lemmas are put into a random template at times."""
        if self.is_lemma[row] and rng.random() < self.training.word_templates:
            return TEMPLATES[rng.integers(1, len(TEMPLATES))].format(self.words[row])
        return str(self.words[row])

    def sample_caption(self, concept: int, rng: np.random.Generator) -> Tensor:
        """Tokens of a random caption of a concept: its label in two cases of three, else a tag."""
        captions = self.captions[concept]
        number = 0 if rng.random() < 0.67 or len(captions) == 1 else rng.integers(1, len(captions))
        return captions[number][rng.integers(len(TEMPLATES))]


def neighbour_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence from the teacher's to the student's distribution over the other texts of the batch."""
    diagonal = torch.eye(len(student), dtype=torch.bool)
    target = (teacher @ teacher.T / temperature).masked_fill(diagonal, -1e4).softmax(-1)
    predicted = (student @ student.T / temperature).masked_fill(diagonal, -1e4).log_softmax(-1)
    return F.kl_div(predicted, target, reduction="batchmean")


def embed_texts(tower: Any, tokens: Tensor, parts: int = 3) -> Tensor:
    """Unit embeddings (n, 256) as of the tower's own forward, in parts of similar length to save work on padding."""
    lengths = (tokens != 0).sum(1)
    order = lengths.argsort()
    embedded = []
    for rows in order.chunk(parts):
        cut = tokens[rows, : int(lengths[rows].max())]
        end_states = text_hidden_states(tower, cut)[torch.arange(len(rows)), cut.argmax(-1)]
        embedded.append(F.normalize((end_states @ tower.text_projection).float(), dim=-1))
    return torch.cat(embedded)[order.argsort()]


def augment(
    pixels: Tensor, rng: np.random.Generator, rotation: float = 0.15, scales: tuple[float, float] = (0.85, 1.25)
) -> Tensor:
    """Flip, rotate, scale, shift and tint drawings at random (uint8 to floats in [-1, 1]) on a white background."""
    n = len(pixels)
    ink = 1 - pixels.float() / 255  # 0 in the background
    angle = torch.from_numpy(rng.normal(0, rotation, n))
    scale = torch.from_numpy(rng.uniform(*scales, n))
    flip = torch.from_numpy(rng.choice([-1.0, 1.0], n))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = torch.from_numpy(rng.uniform(-0.12, 0.12, (2, n)))
    affine = torch.stack(
        [torch.stack([cos * flip, -sin, shift[0]], 1), torch.stack([sin * flip, cos, shift[1]], 1)], 1
    ).float()
    grid = F.affine_grid(affine, list(ink.shape), align_corners=False)
    ink = F.grid_sample(ink, grid, align_corners=False)
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (n, 3, 1, 1))).float()
    return 1 - 2 * (ink * gain).clamp(0, 1)


def restyle(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """``augment`` more strongly, mix colours, make some drawings grey or blurred, and erase a rectangle of some."""
    n, size = len(pixels), pixels.shape[-1]
    ink = (1 - augment(pixels, rng, rotation=0.25, scales=(0.85, 1.6))) / 2
    mixing = np.eye(3) + rng.normal(0, 0.12, (n, 3, 3))
    mixing[rng.random(n) < 0.15] = 1 / 3  # grey
    ink = torch.einsum("nij,njhw->nihw", torch.from_numpy(mixing).float(), ink)
    soft = torch.from_numpy(rng.random(n) < 0.2)
    ink[soft] = F.avg_pool2d(ink[soft], 3, stride=1, padding=1)
    for row in np.flatnonzero(rng.random(n) < 0.3):
        top, left = rng.integers(0, size, 2)
        height, width = rng.integers(size // 8, size // 3, 2)
        ink[row, :, top : top + height, left : left + width] = 0
    return 1 - 2 * ink.clamp(0, 1)


def cosine_with_warmup(step: int, warmup: int, steps: int) -> float:
    """The factor of the learning rate at a step: a linear warm-up, then half a cosine down to one per cent."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def save_checkpoint(path: Path, step: int, parts: dict[str, Any]) -> None:
    """Save the state of all parts after ``step`` steps, atomically."""
    with atomic(path) as temporary:
        torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, temporary)


def resume_training(path: Path, parts: dict[str, Any]) -> int:
    """Load the parts from a checkpoint if it exists; returns the step to continue from."""
    if not path.exists():
        return 0
    stored = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    log.info("resumed from %s at step %d", path.name, stored["step"])
    return int(stored["step"])


@torch.inference_mode()
def evaluate_clip(build: Build) -> dict[str, float]:
    """Recall (fractions) on drawings of the two unseen sets, and of synonyms among all labels."""
    model, tokenizer = load_clip(build)
    pixels, concept, trained_on, concepts = load_pictures(build)
    drawings = torch.from_numpy(pixels[~trained_on]).permute(0, 3, 1, 2).float() / 127.5 - 1
    picture_vectors = torch.cat([model.encode_image(batch, normalize=True) for batch in drawings.split(256)])
    label_texts = [[template.format(c["label"]) for template in TEMPLATES] for c in concepts]
    label_vectors = F.normalize(
        torch.stack([model.encode_text(tokenizer(texts), normalize=True).mean(0) for texts in label_texts]), dim=-1
    )
    synonyms = json.loads((build / "synonyms.json").read_text())
    labels = [c["label"] for c in concepts]
    word_texts = [[template.format(s["word"]) for template in TEMPLATES] for s in synonyms]
    word_vectors = F.normalize(
        torch.stack([model.encode_text(tokenizer(texts), normalize=True).mean(0) for texts in word_texts]), dim=-1
    )
    truth = torch.from_numpy(concept[~trained_on].astype(np.int64))
    picture_ranks = true_ranks(picture_vectors @ label_vectors.T, truth)
    word_ranks = true_ranks(word_vectors @ label_vectors.T, torch.tensor([labels.index(s["label"]) for s in synonyms]))
    present = truth.unique()
    scores = label_vectors[present] @ picture_vectors.T
    # The rank of the best picture of each label's concept.
    best_ranks = torch.stack([(row > row[truth == i].max()).sum() for row, i in zip(scores, present, strict=True)])
    report = {f"picture_to_text_at_{k}": float((picture_ranks < k).float().mean()) for k in (1, 5, 10)}
    report |= {f"text_to_picture_at_{k}": float((best_ranks < k).float().mean()) for k in (1, 5, 10)}
    report |= {f"synonym_at_{k}": float((word_ranks < k).float().mean()) for k in (1, 10)}
    log.info("mini-CLIP: %s", report)
    return report | {"pictures": len(picture_vectors), "synonyms": len(word_vectors), "labels": len(label_vectors)}


def true_ranks(scores: Tensor, true_columns: Tensor) -> Tensor:
    """The number of columns that score above the true one, for each row."""
    return (scores > scores.gather(1, true_columns[:, None])).sum(1)

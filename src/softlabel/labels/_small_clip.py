"""A small CLIP of one's own: a vision and a text transformer trained on a data set's images and class names.

For machines that reach no public CLIP, and for tests: it is kept as transformers keeps one, and read by the same code
(`softlabel.models.load_backbone`, `clip:FOLDER`). Radford et al. (2021) contrast every image with the captions of its
batch; here the captions are the data's class names in a prompt, and every image is contrasted with all of them.
"""

import io
import json
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, Dataset, DatasetInfo, Progress, Silent, fingerprint, plain, stream_seed
from softlabel.labels._projector import PROMPT
from softlabel.labels._words import prompts
from softlabel.losses import Loss
from softlabel.models import optional_package
from softlabel.store import FileCheckpoint, is_complete, new_artifact, read_artifact, require_same
from softlabel.training import Checks, Execution, Optimizer, Protocol, Schedule, fit, measure_accuracy

KIND = "clip"
START, END = "<|startoftext|>", "<|endoftext|>"
TEXT_LENGTH = 64
_PRINTABLE = range(33, 127)


@dataclass(frozen=True, kw_only=True)
class SmallClipConfig:
    """Sizes and training of a small CLIP.

    Attributes:
        width, depth, heads: of the vision transformer; the text transformer has half its depth.
        patch: pixels per side of a patch.
        embedding: size of the shared space.
        epochs, batch, lr: of AdamW with a linear warm-up and fall.
    """

    width: int = 192
    depth: int = 6
    heads: int = 3
    patch: int = 4
    embedding: int = 128
    epochs: int = 10
    batch: int = 128
    lr: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "patch", "embedding"):
            if getattr(self, name) < 1:
                raise ConfigError(f"A CLIP needs {name} of 1 or more. Got {getattr(self, name)} instead.")
        if self.width % self.heads:
            raise ConfigError(f"The width {self.width} is not shared evenly by {self.heads} heads.")
        self.protocol()

    def protocol(self) -> Protocol:
        """The training as a protocol."""
        return Protocol(
            name="clip",
            epochs=self.epochs,
            batch=self.batch,
            views="flip-crop",
            labels="hard",
            loss=Loss("ce"),
            optimizer=Optimizer(name="adamw", lr=self.lr, weight_decay=0.05, decay_on="matrices"),
            schedule=Schedule(name="warmup_linear", warmup=0.1),
            checks=Checks(every=1),
        )


class Contrast(nn.Module):
    """A CLIP as a classifier of the prompts that it is given: what it is trained as."""

    def __init__(self, clip: nn.Module, tokens: dict[str, Tensor]) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("ids", tokens["input_ids"], persistent=False)
        self.register_buffer("mask", tokens["attention_mask"], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Cosines of images [B, 3, H, W] and prompts, times the learned scale: [B, prompts]."""
        model: Any = self.clip
        seen = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
        read = model.text_projection(model.text_model(input_ids=self.ids, attention_mask=self.mask).pooler_output)
        logits: Tensor = model.logit_scale.exp() * F.normalize(seen, dim=-1) @ F.normalize(read, dim=-1).T
        return logits


def train_small_clip(
    data: Dataset, config: SmallClipConfig, *, out: Path, execution: Execution, seed: int = 0,
    progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Train a CLIP on `data` and keep it at `out`; an equal one is found, an interrupted one goes on.

    Raises:
        ConfigError: images that are not square, not of three channels, or not a whole number of patches.
        MissingExtraError: transformers is not installed.
        StoreError: something else stands at `out`.
    """
    check_small_clip(data.info, config)
    texts = prompts(data.info.class_names, PROMPT)
    identity = {
        "config": plain(config), "protocol": config.protocol().fingerprint, "texts": texts, "data": data.info.digest,
        "train": data.train.digest, "seed": seed, "execution": execution.identity,
    }  # fmt: skip
    key, progress = fingerprint(identity), progress or Silent()
    if is_complete(out):
        require_same(out, "CLIP", read_artifact(out, KIND).meta["fingerprint"], key)
        return out
    meta: dict[str, Any] = {**identity, "fingerprint": key, "info": plain(data.info)}
    with new_artifact(out, KIND, meta, resumable=True) as writer:
        clip, tokenizer = _build(data.info, config, seed)
        model = Contrast(clip, tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
        checkpoint = FileCheckpoint(writer.folder / "resume.safetensors")
        fit(
            model,
            data.train,
            protocol=config.protocol(),
            info=data.info,
            seed=stream_seed(seed, "clip"),
            execution=execution,
            test=data.test,
            checkpoint=checkpoint,
            save_seconds=0,
            progress=progress,
            what=f"CLIP on {data.info.name}",
        )
        meta["test_accuracy"] = measure_accuracy(model, data.test, data.info, execution)
        checkpoint.clear()
        with redirect_stderr(io.StringIO()):  # it draws a bar
            clip.cpu().save_pretrained(writer.folder)
            tokenizer.save_pretrained(writer.folder)
        for file in writer.folder.glob("*.safetensors"):
            file.chmod(0o644)  # the package lets nobody else read them
        settings = {
            "image_processor_type": "CLIPImageProcessor",
            "image_mean": list(data.info.mean),
            "image_std": list(data.info.std),
            "size": {"shortest_edge": data.info.height},
            "crop_size": {"height": data.info.height, "width": data.info.width},
        }
        writer.write("preprocessor_config.json", json.dumps(settings, indent=1).encode())
    return out


def check_small_clip(info: DatasetInfo, config: SmallClipConfig) -> None:
    """Raise ConfigError for images that are not square, not of three channels, or not a whole number of patches."""
    if info.channels != 3 or info.height != info.width or info.height % config.patch:
        raise ConfigError(
            f"A CLIP takes square images of 3 channels, cut into patches of {config.patch} px. {info.name} has "
            f"{info.channels} x {info.height} x {info.width}: convert it with --image-size and --channels, or change "
            f"--patch."
        )


def _build(info: DatasetInfo, config: SmallClipConfig, seed: int) -> tuple[Any, Any]:
    """A fresh model, and a tokenizer whose words are single characters."""
    transformers = optional_package("transformers", "hf", "of a CLIP")
    letters = [chr(code) for code in _PRINTABLE]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    shared = {"hidden_size": config.width, "intermediate_size": 4 * config.width, "num_attention_heads": config.heads}
    ends = {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    settings = transformers.CLIPConfig(
        text_config={
            **shared, **ends, "num_hidden_layers": max(1, config.depth // 2), "vocab_size": len(tokens),
            "max_position_embeddings": TEXT_LENGTH,
        },
        vision_config={
            **shared, "num_hidden_layers": config.depth, "image_size": info.height, "patch_size": config.patch,
        },
        projection_dim=config.embedding,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "clip", "init") % 2**63)
        model = transformers.CLIPModel(settings)
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_LENGTH)
    return model, tokenizer

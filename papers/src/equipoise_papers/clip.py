"""A CLIP as a black box: prompts in, class scores out, by any tower; its images, and the cache of their features."""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.blackbox.arrays import Array
from equipoise.data.images import opened
from equipoise.data.office import ImageSource, read_office
from equipoise.errors import InputError, require
from equipoise.reading import Unreadable, read_npy
from equipoise.store import replacing
from equipoise_papers.prompts import PromptTask

__all__ = [
    "MEAN",
    "STD",
    "TEMPLATE",
    "Clip",
    "FeatureClip",
    "ImageSource",
    "OpenClip",
    "cached_features",
    "digest_of",
    "load_clip",
    "office_tasks",
    "read_image",
    "read_office",
]

TEMPLATE = "a photo of a {class}"


class Clip:
    """A CLIP with frozen encoders that classifies images by the similarity to a text for each class.

    A text is [begin] p_1 … p_tokens {class name} [end], with p the prompt's token embeddings; the score of class y is
    exp(logit scale) · cos(h_image(x), h_text(p; y)). The prompt takes its place in the output of the token embedding, so
    positions, causal mask and pooling are those of the model.

    Args:
        model: a ``transformers.CLIPModel``; put into evaluation mode.
        tokenizer: from a text to token ids with begin and end, as ``transformers.CLIPTokenizer`` gives by
            ``tokenizer(text)["input_ids"]``.
        classes: names, in the order of the labels.
        texts_at_once: how many texts go through the text encoder together.

    Raises:
        InputError: fewer than two classes.

    Attributes:
        embedding_size: E.
        embedding_std: σ_e.
    """

    def __init__(self, model: Any, tokenizer: Any, classes: Sequence[str], *, texts_at_once: int = 512) -> None:
        if len(classes) < 2:
            raise InputError(f"{len(classes)} classes were given; classification needs at least two")
        self.model = model.eval()
        self.classes = tuple(classes)
        self._tokenizer = tokenizer
        self._texts_at_once = max(texts_at_once, len(classes))
        self._embedding = self._token_embedding()
        self._device = self._embedding.weight.device
        self._longest = self._context()
        self.embedding_size = int(self._embedding.weight.shape[1])
        self.embedding_std = float(self._embedding.weight.detach().float().std())
        self._class_ids: dict[int, Tensor] = {}

    @classmethod
    def from_pretrained(cls, source: str | Path, classes: Sequence[str], *, device: str = "cpu", **options: Any) -> Clip:
        """Loads model and tokenizer from a local folder or the user's cache of Hugging Face; nothing is downloaded.

        Args:
            source: the folder, or the model's name.
            classes: names, in the order of the labels.
            device: where the model computes.
            options: of the constructor.

        Raises:
            MissingExtraError: transformers is not installed.
            InputError: the model is not there.
        """
        transformers = require("transformers", "clip", "equipoise-papers")
        try:
            model = transformers.CLIPModel.from_pretrained(str(source), local_files_only=True)
            tokenizer = transformers.CLIPTokenizer.from_pretrained(str(source), local_files_only=True)
        except OSError as error:
            raise InputError(
                f'no CLIP in "{source}" ({str(error).splitlines()[0]}); give a folder of save_pretrained(), or download '
                "the model into the cache first"
            ) from error
        return cls(model.to(device), tokenizer, classes, **options)

    # What differs between the packages that have a CLIP.
    _image_weights: tuple[str, ...] = ("vision_model", "visual_projection")

    def _token_embedding(self) -> Any:
        return self.model.text_model.get_input_embeddings()

    def _context(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def _images(self, pixels: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(pixel_values=pixels))

    def _texts(self, ids: Tensor) -> Tensor:
        return _pooled(self.model.get_text_features(input_ids=ids))

    @torch.no_grad()
    def image_features(self, pixels: Tensor | NDArray[np.float32], *, images_at_once: int = 256) -> NDArray[np.float32]:
        """Features of length 1 [n, F] of prepared images [n, 3, H, W]."""
        images = torch.as_tensor(pixels)
        parts = []
        for part in images.split(images_at_once):
            features = self._images(part.to(self._device))
            parts.append(torch.nn.functional.normalize(features.float(), dim=-1).cpu())
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def text_features(self, prompts: Array) -> Tensor:
        """Features of length 1 [B, C, F] of all classes under prompts [B, tokens, E]."""
        count, tokens = prompts.shape[:2]
        ids = self._ids(tokens)
        own = torch.as_tensor(prompts, dtype=self._embedding.weight.dtype, device=self._device)
        parts = []
        for part in own.split(max(1, self._texts_at_once // len(self.classes))):
            placed = part.repeat_interleave(len(self.classes), dim=0)

            def put(_module: Any, _inputs: Any, out: Tensor, placed: Tensor = placed) -> Tensor:
                return torch.cat([out[:, :1], placed, out[:, 1 + placed.shape[1] :]], dim=1)

            handle = self._embedding.register_forward_hook(put)
            try:
                features = self._texts(ids.repeat(len(part), 1))
            finally:
                handle.remove()
            parts.append(torch.nn.functional.normalize(features.float(), dim=-1))
        return torch.cat(parts).view(count, len(self.classes), -1)

    @torch.no_grad()
    def zero_shot_features(self, template: str = TEMPLATE) -> Tensor:
        """Features of length 1 [1, C, F] of the classes under a handwritten prompt with ``{class}`` in it."""
        ids = self._padded([self._read(template.replace("{class}", name)) for name in self.classes])
        features = self._texts(ids)
        return torch.nn.functional.normalize(features.float(), dim=-1)[None]

    def scores(self, prompts: Array, inputs: list[Any]) -> list[Array]:
        """Class scores; see :class:`PromptModel`. The texts are encoded once for all tasks."""
        return self.scores_of(self.text_features(prompts), inputs)

    @torch.no_grad()
    def scores_of(self, texts: Tensor, inputs: list[Any]) -> list[Array]:
        """Class scores [B, n, C] of image features under given text features, for each task."""
        scale = self.model.logit_scale.exp().float()
        return [
            (scale * torch.einsum("nf,bcf->bnc", torch.as_tensor(rows, device=self._device), texts)).double().cpu().numpy()
            for rows in inputs
        ]

    def fingerprint(self) -> str:
        """A digest of the image encoder's weights, by which cached features are told apart."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            if name.startswith(self._image_weights):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _ids(self, tokens: int) -> Tensor:
        """Token ids [C, length] with placeholders where the prompt goes."""
        if tokens not in self._class_ids:
            rows = []
            for name in self.classes:
                begin, *rest = self._read(name)
                rows.append([begin] + [rest[0]] * tokens + rest)
            self._class_ids[tokens] = self._padded(rows)
        return self._class_ids[tokens]

    def _read(self, text: str) -> list[int]:
        return [int(token) for token in self._tokenizer(text)["input_ids"]]

    def _padded(self, rows: list[list[int]]) -> Tensor:
        length = self._padded_to or max(map(len, rows))
        longest = max(map(len, rows))
        if longest > self._longest:
            raise InputError(f"a text has {longest} tokens with its prompt, the model takes {self._longest}; use fewer")
        # The end token pads, too: what is pooled is its first occurrence, and what follows cannot be seen from there.
        return torch.tensor([row + [row[-1]] * (length - len(row)) for row in rows], device=self._device)

    _padded_to: int | None = None


class OpenClip(Clip):
    """A model of open_clip, ResNet-50's image tower among them, which transformers does not have.

    Args:
        model: as ``open_clip.create_model`` gives it, with one text tower in the model itself.
        tokenizer: from ``open_clip.get_tokenizer``; from a text to the ids of its words is ``tokenizer.encode``.
        classes: names, in the order of the labels.
        options: of :class:`Clip`.

    Raises:
        InputError: as :class:`Clip`, or a model whose texts are encoded otherwise.
    """

    _image_weights = ("visual.",)

    def __init__(self, model: Any, tokenizer: Any, classes: Sequence[str], **options: Any) -> None:
        if not hasattr(model, "token_embedding") or getattr(model, "text_pool_type", "argmax") != "argmax":
            raise InputError(
                "this model of open_clip does not pool its texts at their last token, as CLIP does; give one such as RN50"
            )
        self._padded_to = int(model.context_length)
        begin, end = tokenizer.sot_token_id, tokenizer.eot_token_id
        super().__init__(model, lambda text: {"input_ids": [begin, *tokenizer.encode(text), end]}, classes, **options)

    @classmethod
    def from_file(
        cls, name: str, weights: str | Path, classes: Sequence[str], *, device: str = "cpu", **options: Any
    ) -> OpenClip:
        """Makes a model of open_clip and loads its weights from a file; nothing is downloaded.

        Args:
            name: of the architecture, such as ``"RN50-quickgelu"``, which is OpenAI's ResNet-50.
            weights: the file.
            classes: names, in the order of the labels.
            device: where the model computes.
            options: of :class:`Clip`.

        Raises:
            MissingExtraError: open_clip is not installed.
            InputError: there is no such file.
        """
        if not Path(weights).is_file():
            raise InputError(f'there is no file "{weights}" of weights for open_clip\'s {name}')
        package = require("open_clip", "open_clip", "equipoise-papers")
        model = package.create_model(name, pretrained=str(weights), device=device)
        return cls(model, package.get_tokenizer(name), classes, **options)

    def _token_embedding(self) -> Any:
        return self.model.token_embedding

    def _context(self) -> int:
        return int(self.model.context_length)

    def _images(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model.encode_image(pixels)
        return features

    def _texts(self, ids: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(ids)
        return features


class FeatureClip:
    """Scores from features that were computed elsewhere, by whatever towers: exp(scale) · cos(image, text).

    Images are their features, :class:`PromptTask.inputs`; only the text tower is asked, a function of the prompts.

    Args:
        texts: from prompts [B, tokens, E] to text features [B, C, F] of all classes, of any length; an array or a tensor.
        embedding_size: E.
        embedding_std: σ_e.
        scale: the logit scale; CLIP's ln 100 if left out.
        zero_shot: text features [C, F] under the handwritten prompt, for :meth:`zero_shot_features`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> words = rng.normal(size=(3, 5))
        >>> clip = FeatureClip(lambda prompts: words + prompts.mean(axis=(1, 2))[:, None, None], embedding_size=3)
        >>> clip.scores(rng.normal(size=(2, 4, 3)), [rng.normal(size=(7, 5))])[0].shape
        (2, 7, 3)
    """

    def __init__(
        self,
        texts: Callable[[Array], Any],
        embedding_size: int,
        embedding_std: float = 1.0,
        *,
        scale: float = math.log(100.0),
        zero_shot: Any = None,
    ) -> None:
        self.embedding_size = embedding_size
        self.embedding_std = embedding_std
        self.scale = scale
        self._of_prompts = texts
        self._zero_shot = zero_shot

    def scores(self, prompts: Array, inputs: list[Any]) -> list[Array]:
        """Class scores; see :class:`PromptModel`."""
        return self.scores_of(self._of_prompts(prompts), inputs)

    def zero_shot_features(self) -> Tensor:
        """Features of the classes [1, C, F] under the handwritten prompt. Raises InputError: none were given."""
        if self._zero_shot is None:
            raise InputError("no text features of the handwritten prompt were given; pass zero_shot=, [classes, features]")
        return torch.as_tensor(self._zero_shot)[None]

    @torch.no_grad()
    def scores_of(self, texts: Any, inputs: list[Any]) -> list[Array]:
        """Class scores [B, n, C] of image features under given text features, for each task."""
        own = torch.nn.functional.normalize(torch.as_tensor(texts).double(), dim=-1)
        return [
            (
                math.exp(self.scale)
                * torch.einsum(
                    "nf,bcf->bnc", torch.nn.functional.normalize(torch.as_tensor(rows, device=own.device).double(), dim=-1), own
                )
            )
            .cpu()
            .numpy()
            for rows in inputs
        ]


def load_clip(source: str, classes: Sequence[str], device: str = "cpu") -> Any:
    """The CLIP that an option names.

    Args:
        source: a folder in the format of transformers; ``open_clip:RN50-quickgelu:FILE`` for a model of open_clip; or
            ``package.module:function``, called with the classes and the device, which gives a :class:`Clip` or whatever has its
            methods ``scores``, ``scores_of``, ``zero_shot_features``, ``image_features`` and ``fingerprint``.
        classes: names, in the order of the labels.
        device: where it computes.

    Raises:
        InputError: it is none of these.
    """
    kind, _, rest = source.partition(":")
    if kind == "open_clip":
        name, _, file = rest.partition(":")
        return OpenClip.from_file(name, file, classes, device=device)
    if not rest or Path(source).exists():
        return Clip.from_pretrained(source, classes, device=device)
    try:
        make = getattr(importlib.import_module(kind), rest)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f'no CLIP "{source}" ({error}); give a folder, "open_clip:MODEL:FILE", or "package.module:function"'
        ) from error
    return make(classes, device)


def _pooled(output: Any) -> Tensor:
    """The features; newer versions of transformers wrap them."""
    return output if isinstance(output, Tensor) else output.pooler_output


# Of the pixels that CLIP was trained on, by channel; part of the model.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def read_image(path: Path, size: int = 224) -> NDArray[np.float32]:
    """An image [3, size, size]: the shorter edge scaled to ``size`` (bicubic), the centre cut out, channels normalised.

    Raises:
        MissingExtraError: Pillow is not installed.
        InputError: the file is no image.
    """
    module = require("PIL.Image", "clip", "equipoise-papers")
    image = opened(path, module)
    width, height = image.size
    factor = size / min(width, height)
    image = image.resize((max(size, round(width * factor)), max(size, round(height * factor))), module.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255.0
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1))


def digest_of(*parts: Any) -> str:
    """A name for what features depend on: strings, arrays by their content, files by path, size and time of change.

    Example:
        >>> digest_of("a", "b") == digest_of("a", "b") != digest_of("ab")
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            content = f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        elif isinstance(part, Path):
            about = part.stat()
            content = f"{part.resolve()} {about.st_size} {about.st_mtime_ns}".encode()
        else:
            content = str(part).encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:24]


def cached_features(
    compute: Callable[[], NDArray[np.float32]], folder: str | Path | None, depends_on: Sequence[Any]
) -> NDArray[np.float32]:
    """What ``compute`` returns, from the file if it has been computed before.

    Args:
        compute: makes the features [n, F].
        folder: where they are kept; ``None`` to keep none.
        depends_on: everything that they depend on, such as the model's fingerprint and the images; see :func:`digest_of`.
    """
    if folder is None:
        return compute()
    path = Path(folder) / f"features-{digest_of(*depends_on)}.npy"
    try:
        return np.asarray(read_npy(path), dtype=np.float32)
    except Unreadable:
        pass  # not there, or not whole
    features = compute()
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, features)
    return features


def office_tasks(
    sources: Sequence[ImageSource],
    clip: Clip,
    *,
    cache: str | Path | None,
    size: int = 224,
    told: Callable[[str], object] | None = None,
) -> list[PromptTask]:
    """Encodes the images of all sources, once; afterwards the features come from the cache.

    Args:
        sources: from :func:`read_office`.
        clip: with the class names in the sources' order, underscores replaced by spaces as one likes.
        cache: folder of the features; ``None`` to keep none.
        size: pixels of an edge that the model takes.
        told: takes a line before a split is encoded.
    """
    fingerprint = clip.fingerprint()
    tasks = []
    for source in sources:
        features = {}
        for split, paths in source.paths.items():

            def encode(paths: tuple[Path, ...] = paths, what: str = f"{source.name}, {split}") -> NDArray[np.float32]:
                if told is not None:
                    told(f"encoding {len(paths)} images of {what}")
                parts = [paths[start : start + 256] for start in range(0, len(paths), 256)]
                return np.concatenate([clip.image_features(np.stack([read_image(p, size) for p in part])) for part in parts])

            features[split] = cached_features(encode, cache, [fingerprint, size, *paths])
        tasks.append(PromptTask(source.name, features, source.labels))
    return tasks

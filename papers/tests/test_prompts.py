"""Prompt tuning end to end on a small CLIP, the adapter against CLIP itself, and images on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.blackbox import minimize
from equipoise.data.office import read_office
from equipoise.errors import InputError
from equipoise_papers.clip import Clip, FeatureClip, OpenClip, load_clip, office_tasks
from equipoise_papers.figures.asmg_prompt.clip import small_clip, sources, tokenizer
from equipoise_papers.figures.asmg_prompt.make import make
from equipoise_papers.figures.asmg_prompt.settings import ASMGPromptSettings
from equipoise_papers.prompts import BlackBoxPrompt, CallableModel, PromptTask, QueryBudgetError
from equipoise_papers.reproduce import Setting, find_recipe


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(small_clip(sources(), steps=1), tokenizer(), ["one", "seven"])


def test_a_prompt_made_of_word_embeddings_is_that_text(clip: Clip) -> None:
    ids = tokenizer()("ab")["input_ids"][1:-1]
    prompt = clip.model.text_model.get_input_embeddings().weight[ids].detach().double().numpy()[None]
    theirs = clip.zero_shot_features("ab {class}")
    torch.testing.assert_close(clip.text_features(prompt), theirs)


class _LikeOpenClip(torch.nn.Module):
    """The tensors of a CLIP of transformers by the names and the calls of open_clip, whose texts have one fixed length."""

    def __init__(self, model) -> None:
        super().__init__()
        self.visual = model
        self.token_embedding = model.text_model.get_input_embeddings()
        self.context_length = model.config.text_config.max_position_embeddings
        self.logit_scale = model.logit_scale

    def encode_image(self, pixels):
        return self.visual.get_image_features(pixel_values=pixels).pooler_output

    def encode_text(self, ids):
        assert ids.shape[1] == self.context_length
        return self.visual.get_text_features(input_ids=ids).pooler_output


class _LikeItsTokenizer:
    sot_token_id, eot_token_id = (tokenizer().convert_tokens_to_ids(f"<|{end}oftext|>") for end in ("start", "end"))

    def encode(self, text):
        return tokenizer()(text)["input_ids"][1:-1]


def test_models_of_open_clip_and_features_from_elsewhere(clip: Clip) -> None:
    rng = np.random.default_rng(0)
    other = OpenClip(_LikeOpenClip(clip.model), _LikeItsTokenizer(), ["one", "seven"])
    prompts = rng.normal(size=(3, 4, clip.embedding_size)) * clip.embedding_std
    images = clip.image_features(torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    (wanted,) = clip.scores(prompts, [images])
    np.testing.assert_allclose(other.scores(prompts, [images])[0], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.zero_shot_features("ab {class}"), clip.zero_shot_features("ab {class}"))
    assert other.fingerprint() != clip.fingerprint()

    texts = clip.zero_shot_features()[0]
    loose = FeatureClip(
        clip.text_features, clip.embedding_size, scale=float(clip.model.logit_scale.detach()), zero_shot=3.0 * texts
    )
    np.testing.assert_allclose(loose.scores(prompts, [2.0 * images])[0], wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        loose.scores_of(loose.zero_shot_features(), [images])[0], clip.scores_of(texts[None], [images])[0], rtol=1e-5, atol=1e-5
    )
    tasks = [PromptTask("a", {"train": images}, {"train": np.arange(5) % 2})]
    assert BlackBoxPrompt(loose, tasks, dim=6)(rng.normal(size=(2, 6))).shape == (2, 1)
    with pytest.raises(InputError, match="no text features of the handwritten prompt"):
        FeatureClip(clip.text_features, 3).zero_shot_features()


def test_a_clip_by_name(tmp_path) -> None:
    assert load_clip("builtins:isinstance", "a", str) is True  # called with the classes and the device
    for source, said in (
        ("nowhere:make", 'give a folder, "open_clip:MODEL:FILE", or "package.module:function"'),
        (f"open_clip:RN50:{tmp_path / 'none.pt'}", "there is no file .* of weights for open_clip's RN50"),
    ):
        with pytest.raises(InputError, match=said):
            load_clip(source, ["a", "b"])


def test_the_recipe_computes_where_the_device_is(tmp_path) -> None:
    """On the meta device nothing can be read back: that the model went there is what the error says."""
    part = find_recipe("thesis-table4.1").parts[0]
    setting = Setting(data=part.write_sample(tmp_path / "data"), smoke=True, device="meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        part.run(setting, part.rows[0], 0, 1, tmp_path)


def test_folders_splits_lists_and_cache(clip: Clip, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for source in ("amazon/images", "dslr"):
        for label in ("one", "seven"):
            folder = tmp_path / "office" / source / label
            folder.mkdir(parents=True)
            for number in range(10):
                Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    found = read_office(tmp_path / "office")
    assert [source.name for source in found] == ["amazon", "dslr"]
    assert {split: len(paths) for split, paths in found[0].paths.items()} == {"train": 12, "validation": 4, "test": 4}
    told: list[str] = []
    first = office_tasks(found, clip, cache=tmp_path / "cache", size=16, told=told.append)
    assert len(told) == 6
    second = office_tasks(found, clip, cache=tmp_path / "cache", size=16, told=told.append)
    assert len(told) == 6
    assert (first[0].inputs["train"] == second[0].inputs["train"]).all()
    (tmp_path / "train.txt").write_text("dslr/one/0.png 0\ndslr/seven/1.png 1\n")
    by_list = read_office(tmp_path / "office", ["dslr"], lists={"dslr": {"train": tmp_path / "train.txt"}})
    assert by_list[0].labels["train"].tolist() == [0, 1]
    (tmp_path / "train.txt").write_text("dslr/one/0.png x\n")
    with pytest.raises(InputError, match="line 1"):
        read_office(tmp_path / "office", ["dslr"], lists={"dslr": {"train": tmp_path / "train.txt"}})
    with pytest.raises(InputError, match="no source"):
        read_office(tmp_path / "office", ["webcam"])


def test_budget_and_batches() -> None:
    task = PromptTask("toy", {"train": np.eye(3)}, {"train": np.arange(3)})
    model = CallableModel(lambda p, x: np.einsum("bc,nc->bnc", p.sum(1), x), 3)
    prompt = BlackBoxPrompt(model, [task], dim=5, budget=10)
    prompt(np.zeros((8, 5)))
    with pytest.raises(QueryBudgetError, match="2 of 10"):
        prompt(np.zeros((3, 5)))
    assert prompt.queries == 8
    with pytest.raises(InputError, match="dim is 5"):
        prompt(np.zeros((2, 4)))


@pytest.mark.parametrize("method", ["asmg", "bes"])
def test_a_search_resumes_bit_by_bit_with_its_batches_and_counters(method: str, tmp_path) -> None:
    rng = np.random.default_rng(0)
    tasks = [PromptTask(name, {"train": rng.normal(size=(40, 3))}, {"train": rng.integers(0, 3, 40)}) for name in "ab"]
    model = CallableModel(lambda p, x: np.einsum("bc,nc->bnc", p.sum(1), x), 3)

    def search(iterations: int, **options):
        prompt = BlackBoxPrompt(model, tasks, dim=5, batch_size=7, budget=140, seed=1)
        found = minimize(prompt, np.zeros(5), method, batched=True, iterations=iterations, samples=6, seed=0, **options)
        return found, prompt

    whole, once = search(20)
    search(8, checkpoint=tmp_path / "search", callback=lambda at: None)
    rest, again = search(20, checkpoint=tmp_path / "search")
    assert (rest.x == whole.x).all()
    assert (rest.objectives == whole.objectives).all()
    assert again.state_dict() == once.state_dict()
    assert again.queries == whole.evaluations
    with pytest.raises(InputError, match="another"):
        search(20, checkpoint=tmp_path / "search", failed="penalize")


def test_the_example_end_to_end(tmp_path) -> None:
    settings = ASMGPromptSettings(methods=("asmg", "cma-es"), seeds=(0,), iterations=2, samples=4, dim=8, pretraining_steps=2)
    told: list[str] = []
    table = make(settings, tmp_path, told.append)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["zero-shot", "asmg", "cma-es"]
    # Every option is judged on the validation split by seeds of its own, before anything tuned sees the test split.
    runs = [line.split(", ")[:2] for line in told if ", seed " in line]
    assert [run[0] for run in runs] == ["validation"] * 12 + ["test"] * 2
    assert {run[1] for run in runs[:12]} == {"seed 100", "seed 101"}
    with pytest.raises(InputError, match="overlap"):
        make(ASMGPromptSettings(seeds=(100,)), tmp_path, told.append)
    with pytest.raises(InputError, match="no black-box optimizer"):
        make(ASMGPromptSettings(methods=("cma",)), tmp_path, told.append)

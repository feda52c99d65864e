"""Is what is told of examples' gradients what a plain loop over them finds?"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.evaluating import gradients
from jobs.evaluating.gradients import DrawnExamples, GradientsTaken
from jobs.model import lora
from jobs.model.answer_loss import AnswerLoss
from jobs.model.base_model import load_model, make_tiny
from jobs.model.tuning import apply_tuning, list_trained
from jobs.model.vocabulary import load_vocabulary
from tests.lib.tiny_base import BASE, TEXTS
from zsg_core.data.prompts import EncodedExample
from zsg_core.settings.checkpoints import CheckpointSettings

pytestmark = pytest.mark.engine

LORA = {
    "method": "lora",
    "r": 4,
    "alpha": 8,
    "dropout": 0.5,
    "targets": ["q_proj", "v_proj", "embed_tokens"],
    "seed": 1,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    folder = tmp_path_factory.mktemp("gradients") / "base"
    make_tiny(folder, BASE, TEXTS)
    return folder


def draw(base: Path) -> list[DrawnExamples]:
    """Examples of two sources: questions with answers."""
    words = load_vocabulary(base)
    drawn: list[DrawnExamples] = []
    for source, first in (("task", 0), ("diverse", 7)):
        encoded: list[EncodedExample] = []
        for text in TEXTS[first : first + 4]:
            question, answer = text.split("\n")
            start = [*words.beginning, *words.tokenize(question)]
            ids = [*start, *words.tokenize(answer), words.eos]
            encoded.append(EncodedExample(ids, ((len(start), len(ids)),)))
        names = [f"{source}:{number}" for number in range(len(encoded))]
        drawn.append(DrawnExamples(source, names, encoded))
    return drawn


def loop_plainly(model: Any, examples: Sequence[EncodedExample]) -> torch.Tensor:
    """The gradient of each example's mean answer loss, (examples, parameters) float64,
    by autograd on transformers' own loss."""
    model.eval()
    parameters = [each for each in model.parameters() if each.requires_grad]
    rows: list[torch.Tensor] = []
    for example in examples:
        [(start, _)] = example.spans
        ids = torch.tensor([example.ids])
        labels = ids.clone()
        labels[0, :start] = -100
        loss = model(input_ids=ids, labels=labels).loss
        found = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([each.flatten().double() for each in found]))
    return torch.stack(rows)


def list_plainly(rows: torch.Tensor) -> tuple[float, float, float]:
    """Ratio, norm of the mean, mean of the norms."""
    mean_norm = rows.norm(dim=1).mean().item()
    norm = rows.mean(0).norm().item()
    return norm / mean_norm, norm, mean_norm


@pytest.mark.parametrize("tuning", [{"method": "full"}, {"method": "ln"}, LORA])
def test_gradients_are_those_of_a_plain_loop(
    base: Path, tuning: dict[str, Any]
) -> None:
    """Of each source, of both together and between both; by what the run trains, of
    LoRA its adapters, without dropout. Afterwards nothing has a gradient."""
    from transformers import AutoModelForCausalLM

    model, plain = load_model(base, "fp32"), AutoModelForCausalLM.from_pretrained(base)
    for each in (model, plain):
        apply_tuning(each, tuning)
        _fill_adapters(each)
    trainable = {name for name, each in model.named_parameters() if each.requires_grad}
    model.requires_grad_(False)
    drawn = draw(base)

    trained = list_trained(model, tuning, trainable)
    sums = gradients.sum_gradients(AnswerLoss(model.train()), trained, drawn, "cpu")
    values = gradients.describe_sums("gradient_ratio/mine", drawn, sums)

    rows = [loop_plainly(plain, source.encoded) for source in drawn]
    expected = {
        "task": list_plainly(rows[0]),
        "diverse": list_plainly(rows[1]),
        "": list_plainly(torch.cat(rows)),
    }
    for source, numbers in expected.items():
        end = f"/{source}" if source else ""
        names = ("gradient_ratio", "gradient_norm", "gradient_mean_norm")
        found = [values[f"{name}/mine{end}"] for name in names]
        assert found == pytest.approx(numbers, rel=1e-5)
    cosine = torch.cosine_similarity(rows[0].mean(0), rows[1].mean(0), dim=0).item()
    assert values["gradient_cosine/mine"] == pytest.approx(cosine, abs=1e-5)
    assert 0 < values["gradient_ratio/mine"] < 1
    assert not any(
        each.requires_grad or each.grad is not None for each in model.parameters()
    )


def _fill_adapters(model: Any) -> None:
    """Gives LoRA's second factors, which begin at zero, the same values in any model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                generator = torch.Generator().manual_seed(len(name))
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_what_adapters_add_has_the_norm_of_the_difference(base: Path) -> None:
    """As if each product were made and its norm taken."""
    model = load_model(base, "fp32")
    apply_tuning(model, LORA)
    _fill_adapters(model)
    squares = 0.0
    for module in model.modules():
        if hasattr(module, "lora_A") and module.lora_A:
            squares += module.get_delta_weight("default").double().square().sum().item()

    assert squares
    assert lora.measure_added(model) == pytest.approx(math.sqrt(squares), rel=1e-6)


def test_which_examples_they_were_of_is_kept(tmp_path: Path) -> None:
    """Ids and norms, by source, beside the hidden states; the same are drawn again."""
    drawn = [DrawnExamples("a", ["a:0", "a:1"], []), DrawnExamples("b", ["b:0"], [])]
    sums = [gradients.GradientSums([], norms) for norms in ([1.0, 2.0], [3.0])]
    taken = GradientsTaken(4, "gradient_ratio/mine", {"items": 2}, "w")

    name = gradients.keep_norms(tmp_path, taken, drawn, sums)

    assert name == "representations/4.gradients.mine.json"
    assert '"a:1": 2.0' in (tmp_path / name).read_text()
    ids = [f"{source}:{number}" for source in "ab" for number in range(9)]
    sources = [name[0] for name in ids]
    chosen = gradients.draw_examples(ids, sources, 3)
    assert [len(numbers) for numbers in chosen.values()] == [3, 3]
    assert gradients.draw_examples(ids, sources, 3) == chosen
    assert gradients.draw_examples(ids, sources, 99)["b"] == list(range(9, 18))


def test_a_job_that_asks_for_none_is_written_as_before() -> None:
    """Nor do its keys change; with a name the keys carry it."""
    assert "gradients" not in CheckpointSettings().model_dump()
    asked = CheckpointSettings.model_validate(
        {"snapshots": 5, "gradients": {"items": 8, "name": "mine"}}
    )

    assert asked.scored == ["gradient_ratio/mine"]
    assert asked.named_by("gradient_ratio/mine") == "gradients"
    with pytest.raises(ValueError, match="gradient_ratio is taken by evaluators"):
        CheckpointSettings.model_validate({"gradients": {}})

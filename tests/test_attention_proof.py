"""Is it proven, not listed, how a family's examples may meet in a batch?"""

import warnings
from pathlib import Path
from typing import Any

import pytest

from jobs.contract import model_proof
from jobs.contract.folder import Workspace
from jobs.contract.model_proof import PACKED, PADDED, REFUSED, AttentionProof
from launcher.clusters.profiles import Profile
from launcher.planning import model_proofs
from launcher.planning.site import Site
from launcher.submission import local
from tests.lib.job_records import job_record
from zsg_core.errors import UserError
from zsg_core.families.registry import find_position_key, position_count
from zsg_core.families.rotations import find_rotation_limit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import CONFIG_MAPPING

    from jobs.model import architecture, batching, packed_attention
    from jobs.model.attention_masks import ALL_KEYS
    from jobs.model.attention_proof import TOLERANCE, prove_attention
    from jobs.model.small_config import WINDOW, find_longest, shrink_config
    from jobs.preparing import prepare


def make_config(family: str, **changed: Any) -> Any:
    """A config as large as the class has it by default."""
    return CONFIG_MAPPING[family](**changed)


# What each of these has that another has not: windows; caps and windows; sinks; two
# rotary bases; a window in the mask alone; values of another size than keys; a learnt
# position; a window that is described and never used.
PACKED_FAMILIES = {
    "mistral": {},
    "gemma2": {},
    "gpt_oss": {},
    "gemma3_text": {},
    "phimoe": {},
    "deepseek_v3": {},
    "gpt2": {},
    "qwen2_moe": {},
}


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_a_family_whose_attention_is_done_as_asked_is_packed(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed texts longer than its windows give what each gives alone."""
    # phimoe is not trained for another reason; its attention is the only one of its kind
    monkeypatch.setattr(architecture, "_DRAWN_EXPERTS", ())
    proof = prove_attention(make_config(family))

    assert proof.batching == PACKED, proof.describe()
    assert proof.packed is not None
    assert proof.packed <= TOLERANCE * proof.largest_logit


@pytest.mark.parametrize(
    "family, changed",
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 8}),
        ("mamba", {}),
        ("bloom", {}),
        ("falcon", {"hidden_dropout": 0.1, "attention_dropout": 0.1}),
        ("stablelm", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_family_that_cannot_be_packed_is_padded(
    family: str, changed: dict[str, Any]
) -> None:
    """A state that runs on, a mask or an attention of its own, keywords that do not
    arrive: side by side it gives what each text gives alone."""
    proof = prove_attention(make_config(family, num_hidden_layers=16, **changed))

    assert proof.batching == PADDED, proof.describe()
    assert proof.padded is not None
    assert proof.padded <= TOLERANCE * proof.largest_logit


def test_a_family_that_is_wrong_both_ways_is_refused_with_both_numbers() -> None:
    """Its keys are picked by an index over all that stands in the row."""
    proof = prove_attention(make_config("glm_moe_dsa"))

    assert proof.batching == REFUSED
    assert "packed: " in proof.describe() and "padded: " in proof.describe()


def test_a_window_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is missing, not by leaks: no example sees another there."""
    monkeypatch.setattr(packed_attention, "_choose_seen", lambda *asked: ALL_KEYS)
    proof = prove_attention(make_config("mistral"))

    assert proof.batching == PADDED
    assert proof.packed is not None and proof.packed > 1


@pytest.mark.parametrize(
    "family, changed, why",
    [
        ("bert", {}, "sees the tokens that it is to predict"),
        ("t5", {}, "an encoder and a decoder"),
        ("gemma3", {}, "has others within it"),
        ("qwen3", {"quantization_config": {"quant_method": "fp8"}}, "quantised"),
        ("qwen3", {"auto_map": {"AutoModelForCausalLM": "code.Model"}}, "of its own"),
        ("qwen3", {"head_dim": -7}, "no small 'qwen3' model can be"),
    ],
)
def test_what_is_no_decoder_of_plain_weights_is_refused_by_name(
    family: str, changed: dict[str, Any], why: str
) -> None:
    """In one sentence; the class is not loaded, and no code of a folder runs."""
    config = make_config(family)
    for key, value in changed.items():
        setattr(config, key, value)

    if "head_dim" in changed:  # sizes are replaced: only what stays can be wrong
        config.hidden_act = "nothing that exists"
    with pytest.raises(UserError, match=why):
        prove_attention(config)


def test_a_small_config_has_every_kind_of_layer() -> None:
    """The first of each, wherever it stands; windows are small, the rest is kept."""
    kinds = ["sliding_attention"] * 11 + ["full_attention"]
    config = make_config("gemma3_text", num_hidden_layers=12, layer_types=kinds)
    small = shrink_config(config)

    assert set(small.layer_types) == {"sliding_attention", "full_attention"}
    assert small.num_hidden_layers == len(small.layer_types) == 4
    assert small.sliding_window == WINDOW
    assert small.query_pre_attn_scalar == config.query_pre_attn_scalar
    assert small.rope_parameters == config.rope_parameters


def test_rotations_by_the_longest_text_around_hold_up_to_a_length() -> None:
    """A long text would turn the short ones beside it."""
    half = 48
    rotation = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * half,
        "long_factor": [2.0] * half,
        "original_max_position_embeddings": 4096,
    }
    config = make_config("phi3", rope_parameters=rotation, sliding_window=None)

    assert find_longest(make_config("phi3")) is None
    assert find_longest(config) == 4096
    proof = prove_attention(config)
    assert (proof.batching, proof.longest) == (PACKED, 4096)


FACTORS = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
ORIGIN = "original_max_position_embeddings"


@pytest.mark.parametrize(
    ("family", "told", "limit"),
    [
        ("mistral", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 600),
        (
            "mistral",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, ORIGIN: 100}},
            600,
        ),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, ORIGIN: 100}}, None),
        ("phi3", {"rope_scaling": {"type": "su", ORIGIN: 500, **FACTORS}}, 500),
        ("phi3", {"rope_scaling": {"type": "yarn", **FACTORS}, ORIGIN: 500}, 500),
        ("phi3", {"rope_scaling": {"type": "longrope", **FACTORS}}, 4096),
        (
            "phi3",
            {"rope_scaling": {"type": "su", ORIGIN: 300, **FACTORS}, ORIGIN: 500},
            300,
        ),
        ("phi3", {"rope_scaling": None}, None),
    ],
)
def test_plan_and_jobs_know_one_length_up_to_which_rotations_hold(
    family: str, told: dict[str, Any], limit: int | None
) -> None:
    """One by config.json, the other by transformers' config of it, whatever the kind is
    called and wherever its length stands."""
    config = {"model_type": family, "max_position_embeddings": 600, **told}
    if limit == 4096:
        config["max_position_embeddings"] = 8192
    read = type(make_config(family)).from_dict(dict(config))
    by_plan = find_rotation_limit(config)

    assert find_longest(read) == limit
    assert (by_plan[0] if by_plan else None) == limit


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("gptj", "n_positions"),
        ("dbrx", "max_seq_len"),
        ("rwkv", "context_length"),
        ("kimi_linear", "model_max_length"),
        ("gpt2", "n_positions"),
        ("qwen3", "max_position_embeddings"),
    ],
)
def test_positions_are_counted_by_whatever_name_a_class_has_for_them(
    family: str, key: str
) -> None:
    """As its own config reads it, and as jobs do, whose configs are dicts."""
    config = {"model_type": family, key: 321}
    read = type(make_config(family)).from_dict(dict(config))

    assert read.max_position_embeddings == 321
    assert find_position_key(config) == key
    assert position_count(config) == position_count(read.to_dict()) == 321


def test_a_proof_is_kept_by_what_can_change_it(tmp_path: Path) -> None:
    """Another vocabulary, type of weights or end token is the same proof; another window
    is not, nor is another version of torch."""
    workspace = Workspace(tmp_path)
    config = {"model_type": "mistral", "sliding_window": 4096, "vocab_size": 32_000}
    versions = model_proof.read_proof_versions()
    assert versions is not None
    proof = prove_attention(make_config("mistral"))
    digest = model_proof.digest_config
    model_proof.write_proof(workspace, digest(config), proof)

    extended = config | {"vocab_size": 32_002, "eos_token_id": 5, "dtype": "float16"}
    assert model_proof.read_proof(workspace, digest(extended), versions) == proof
    other_window = config | {"sliding_window": 8192}
    assert model_proof.read_proof(workspace, digest(other_window), versions) is None
    other_torch = versions | {"torch": "1.0"}
    assert model_proof.read_proof(workspace, digest(config), other_torch) is None
    assert model_proof.read_proof(workspace, digest(config), None) == proof
    assert model_proof.read_proof(workspace, digest(other_window), None) is None


def test_a_proof_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """It is made again."""
    workspace, digest = Workspace(tmp_path), "0123456789ab"
    versions = model_proof.read_proof_versions()
    assert versions is not None
    path = model_proof.locate_proof(workspace, digest, versions)
    path.parent.mkdir()
    path.write_text("{]")

    assert model_proof.read_proof(workspace, digest, versions) is None
    assert model_proof.read_proof(workspace, digest, None) is None


def write_config(folder: Path, family: str, **changed: Any) -> Path:
    """A folder with a config.json and nothing else."""
    make_config(family, **changed).save_pretrained(folder)
    return folder


def test_the_attention_of_a_base_is_proven_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is packed has zsg's own, what is padded the class's; whoever comes next reads
    the proof."""
    workspace = Workspace(tmp_path / "work")
    mistral = write_config(tmp_path / "mistral", "mistral")
    bloom = write_config(tmp_path / "bloom", "bloom")
    llama = write_config(tmp_path / "llama", "llama")
    bases = (mistral, bloom, llama)
    chosen = [batching.choose_attention(base, workspace, 2048) for base in bases]

    assert chosen == [None, "eager", None]
    monkeypatch.setattr(batching, "try_to_prove", None)
    again = [batching.choose_attention(base, workspace, 2048) for base in bases]
    assert again == chosen
    assert len(list(workspace.model_proofs.iterdir())) == 2  # a Llama needs none


def test_a_base_that_can_be_trained_in_no_way_is_refused(tmp_path: Path) -> None:
    """With both numbers; and examples longer than rotations hold for."""
    workspace = Workspace(tmp_path / "work")
    indexed = write_config(tmp_path / "indexed", "glm_moe_dsa")
    rotation = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    dynamic = write_config(
        tmp_path / "dynamic",
        "mistral",
        rope_parameters=rotation,
        max_position_embeddings=128,
    )

    with pytest.raises(UserError, match="in no way do examples of this"):
        batching.choose_attention(indexed, workspace)
    assert batching.choose_attention(dynamic, workspace, 128) is None
    with pytest.raises(UserError, match=r"train.max_length is 129, set it to at most"):
        batching.choose_attention(dynamic, workspace, 129)


def test_plan_tells_what_is_proven(tmp_path: Path) -> None:
    """And what is not, with the command that does it."""
    workspace = Workspace(tmp_path / "work")
    site = Site(workspace, Profile.model_validate({"name": "p", "kind": "local"}))
    mistral = write_config(tmp_path / "mistral", "mistral")
    config = batching.read_config_file(mistral)
    digest = model_proof.digest_config(config)

    said = model_proofs.describe_model(mistral, model_proofs.find_proof(site, digest))
    assert "is not yet proven: prepare proves it; zsg doctor --model" in said
    batching.choose_attention(mistral, workspace)
    said = model_proofs.describe_model(mistral, model_proofs.find_proof(site, digest))
    assert "one after the other, without padding: packed (packed: logits are" in said
    assert model_proofs.lets_start(site, model_proof.name_proof(digest), 2048)
    assert model_proof.needs_proof(config)
    assert not model_proof.needs_proof({"model_type": "llama"})


def test_a_job_that_proves_tells_of_each_model_and_reads_no_data(
    tmp_path: Path,
) -> None:
    """A refused one ends nothing of the others: all are proven before it is told."""
    workspace = Workspace(tmp_path / "work")
    folders = [
        write_config(tmp_path / family, family) for family in ("glm_moe_dsa", "mistral")
    ]
    digests = [
        model_proof.digest_config(batching.read_config_file(folder))
        for folder in folders
    ]
    proofs = [
        {"folder": str(folder), "digest": digest, "shortest": 64}
        for folder, digest in zip(folders, digests, strict=True)
    ]
    makes = [model_proof.name_proof(digest) for digest in digests]
    paths = {"workspace": str(workspace.root)}
    job = job_record("prepare", makes=makes, proofs=proofs, paths=paths)

    with pytest.raises(UserError, match=r"in no way .*packed: .*padded: ") as error:
        prepare.run(job)
    assert str(folders[0]) in str(error.value)
    assert str(folders[1]) not in str(error.value)
    site = Site(workspace, Profile.model_validate({"name": "p", "kind": "local"}))
    assert [model_proofs.is_made(site, need) for need in makes] == [True, True]
    assert [model_proofs.lets_start(site, need, 64) for need in makes] == [False, True]


def test_a_run_whose_examples_are_longer_than_was_proven_does_not_start(
    tmp_path: Path,
) -> None:
    """Whoever proved its model; nor does it wait for ever, and a shorter one starts."""
    versions = model_proof.read_proof_versions() or {}
    proof = AttentionProof(
        model_type="m",
        batching=PACKED,
        largest_logit=9.0,
        longest=128,
        versions=versions,
    )
    workspace = Workspace(tmp_path)
    model_proof.write_proof(workspace, "0123456789ab", proof)
    need = frozenset({model_proof.name_proof("0123456789ab")})
    jobs = [
        local.LocalJob(f"runs/{length}", need, max_length=length)
        for length in (128, 129)
    ]
    profile = Profile.model_validate({"name": "p", "kind": "local"})
    needs = local.Needs(workspace, profile)
    local._give_up(workspace, jobs, needs)

    assert [job.ended for job in jobs] == [False, True]
    assert [needs.are_still_there(job) for job in jobs] == [True, False]

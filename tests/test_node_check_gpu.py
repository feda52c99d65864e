"""Do the checks that need a GPU ask it rightly, and judge rightly what it answers? In
torch.cuda's place stands what notes each call."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jobs.contract.node_check import AssumedGpu, Finding, NodeCheckRequest, Trial
from jobs.node_check.agreement import Meeting
from jobs.node_check.context import CheckContext
from jobs.runtime.ranks import Ranks
from zsg_core.training.decoder import DecoderShape

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

    from jobs.model import packed_attention
    from jobs.node_check import (
        attention_kernels,
        device_times,
        evaluating_checks,
        gpus,
        matrix_products,
        pinned_memory,
        small_training,
        training_trials,
    )
    from jobs.node_check.held_memory import MemoryPeak
    from jobs.node_check.speeds import Speeds

pytestmark = pytest.mark.engine

GB = 10**9
A800 = AssumedGpu(name="A800-80G", memory_gb=80, peak_tflops=312, mfu=0.4)
REQUEST = NodeCheckRequest(
    nodes=1,
    ranks_per_node=2,
    cpus_per_rank=1,
    gpus_per_node=8,
    gpu=A800,
    precisions=["bf16"],
    head_sizes=[20],
)


class Cuda:
    """Stands for torch.cuda: what it was asked, in order; and what it answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self.allocated, self.peak, self.reserved = 2 * GB, 7 * GB, 9 * GB
        self.free, self.memory = 84 * GB, 85 * GB
        self.name, self.capability, self.count = "NVIDIA A800-SXM4-80GB", (8, 0), 8
        answers = {
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda: None,
            "memory_allocated": lambda: self.allocated,
            "max_memory_allocated": lambda: self.peak,
            "max_memory_reserved": lambda: self.reserved,
            "memory_reserved": lambda: self.reserved,
            "mem_get_info": lambda: (self.free, self.memory),
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "get_device_properties": lambda: SimpleNamespace(
                name=self.name,
                total_memory=self.memory,
                major=self.capability[0],
                minor=self.capability[1],
                uuid="u-1",
            ),
            "set_per_process_memory_fraction": lambda: None,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, self._note(name, answer))

    def _note(self, name: str, answer: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            return answer()

        return call

    @property
    def names(self) -> list[str]:
        """What it was asked, without for which device."""
        return [call if isinstance(call, str) else call[0] for call in self.calls]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A GPU that is none."""
    return Cuda(monkeypatch)


def make_context(**changes: Any) -> CheckContext:
    """A rank with a GPU."""
    fields: dict[str, Any] = {
        "request": REQUEST,
        "folder": Path("/nowhere/checks/x"),
        "ranks": Ranks(0, 2, 0),
        "node": "n1",
        "deadline": time.monotonic() + 600,
        "device": "cuda:0",
    }
    return CheckContext(**(fields | changes))


def by_key(findings: list[Finding]) -> dict[str, Finding]:
    """Findings by their keys."""
    return {finding.what: finding for finding in findings}


def test_a_gpu_has_done_its_work_before_the_clock_is_read(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time would be that of asking; what warms up is not counted."""
    clock = iter([10.0, 16.0])

    def read_clock() -> float:
        cuda.calls.append("clock")
        return next(clock)

    monkeypatch.setattr(device_times, "time", SimpleNamespace(perf_counter=read_clock))
    seconds = device_times.time_calls(
        lambda: cuda.calls.append("work"), "cuda:1", calls=3, warm_up=2
    )

    assert seconds == 2.0
    warm_up, counted = ["work"] * 2, ["work"] * 3
    timed = ["synchronize", "clock", *counted, "synchronize", "clock"]
    assert cuda.names == [*warm_up, *timed]
    assert ("synchronize", "cuda:1") in cuda.calls


def test_a_peak_is_that_of_what_is_tried_alone(cuda: Cuda) -> None:
    """It is begun anew once the GPU is done and what lay unused is given back."""
    peak = MemoryPeak("cuda:1")
    peak.start()

    assert cuda.names == [
        "synchronize",
        "empty_cache",
        "reset_peak_memory_stats",
        "memory_allocated",
    ]
    assert {call[1:] for call in cuda.calls} == {(), ("cuda:1",)}
    assert (peak.tensors, peak.reserved) == (5 * GB, 9 * GB)
    assert cuda.names[4:6] == ["synchronize", "max_memory_allocated"]


def test_the_peak_of_a_process_is_what_it_held_since_it_was_asked() -> None:
    """On a CPU: 100 MB that were there and are gone, and not those of before."""
    before = bytearray(b"x") * 200_000_000
    del before
    peak = MemoryPeak("cpu")
    peak.start()
    block = bytearray(b"x") * 100_000_000
    del block

    assert 0.08 * GB < peak.tensors < 0.18 * GB


def test_little_memory_is_left_for_a_while_only(cuda: Cuda) -> None:
    """Whatever happens meanwhile; no more than what is held and a little."""
    cuda.reserved = 8 * GB
    with pytest.raises(ValueError), evaluating_checks.little_memory("cuda:0"):
        raise ValueError

    fractions = [c for c in cuda.calls if c[0] == "set_per_process_memory_fraction"]
    shares = [call[1] for call in fractions]
    little = 8 * GB + evaluating_checks.LITTLE_BYTES
    assert shares == [pytest.approx(little / (85 * GB)), 1.0]
    assert {call[2] for call in fractions} == {"cuda:0"}


@pytest.mark.parametrize(
    ("halved", "made", "state"),
    [(3, 1.0, "ok"), (0, 1.0, "skipped"), (3, 0.5, "problem")],
)
def test_batches_must_have_been_halved_and_no_answer_lost(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, halved: int, made: float, state: str
) -> None:
    """Memory is little while answers are made, and not while the model is."""
    order: list[str] = []

    class Answering:
        budget = SimpleNamespace(halved=halved)

        def __init__(self, *arguments: Any) -> None:
            pass

        def answers(self, prompts: list[Any], names: list[str]) -> list[Any]:
            order.append(cuda.names[-1])
            return prompts[: round(made * len(prompts))]

    monkeypatch.setattr(evaluating_checks, "make_llama", lambda *given: None)
    monkeypatch.setattr(evaluating_checks, "Generator", Answering)
    [finding] = evaluating_checks.check_batch_halving(make_context())

    assert finding.state == state
    assert order == ["set_per_process_memory_fraction"]
    assert cuda.calls[-1] == ("set_per_process_memory_fraction", 1.0, "cuda:0")


def test_a_gpu_as_the_profile_has_it_is_well(cuda: Cuda) -> None:
    """Its memory is compared in units of 1e9 bytes."""
    findings = by_key(gpus.check_gpu(make_context()))

    assert {finding.state for finding in findings.values()} == {"ok"}
    assert "NVIDIA A800-SXM4-80GB, 85.0 GB, compute capability 8.0" in findings[""].text
    memory = findings["memory"]
    assert (memory.assumed, memory.measured, memory.unit) == (80, 85, "GB")


@pytest.mark.parametrize(
    ("changes", "key", "state"),
    [
        ({"count": 3}, "visible", "warning"),
        ({"capability": (7, 5)}, "capability", "problem"),
        ({"free": 60 * GB}, "taken", "warning"),
        ({"name": "NVIDIA A100-SXM4-40GB"}, "name", "warning"),
        ({"memory": 42 * GB, "free": 41 * GB}, "memory", "problem"),
    ],
)
def test_a_gpu_that_is_another_than_the_profile_s_is_told(
    cuda: Cuda, changes: dict[str, Any], key: str, state: str
) -> None:
    """Each with what to do."""
    for name, value in changes.items():
        setattr(cuda, name, value)
    finding = by_key(gpus.check_gpu(make_context()))[key]

    assert finding.state == state
    assert finding.advice


def test_one_gpu_that_is_bound_to_a_rank_is_well(cuda: Cuda) -> None:
    """As by --gpus-per-task, whatever the node has."""
    cuda.count = 1
    assert "visible" not in by_key(gpus.check_gpu(make_context()))


@pytest.mark.parametrize(("other", "state"), [("n1 u-1", "problem"), ("n2 u-1", "ok")])
def test_two_ranks_on_one_gpu_are_told(cuda: Cuda, other: str, state: str) -> None:
    """A GPU of another node is another."""
    meeting: Any = SimpleNamespace(exchange=lambda name, text: [text, other])
    [finding] = gpus.check_owners(make_context(meeting=meeting))

    assert finding.state == state


class Stream:
    """A stream that notes what is done on it."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def wait_stream(self, other: Any) -> None:
        """Waits for another."""
        self.calls.append(f"waits for {other}")

    def synchronize(self) -> None:
        """Has the host wait for it."""
        self.calls.append("synchronized")


def test_copies_are_made_on_a_stream_of_their_own_and_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After what was computed before, without the host waiting, into what CUDA pinned."""
    calls: list[str] = []
    registered: list[int] = []

    @contextlib.contextmanager
    def on_stream(stream: Any) -> Iterator[None]:
        calls.append("on stream")
        yield
        calls.append("off stream")

    def register(address: int, size: int, flags: int) -> int:
        registered.append(size)
        return 0

    copy = torch.Tensor.copy_

    def note_copy(self: Any, source: Any, non_blocking: bool = False) -> Any:
        if non_blocking:
            calls.append("copy")
        return copy(self, source)

    runtime = SimpleNamespace(cudaHostRegister=register)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: Stream(calls))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "computing")
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.Tensor, "copy_", note_copy)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    [finding] = pinned_memory.check_pinned_copies(make_context(device="cpu"))

    copies = ["copy"] * len(pinned_memory.SHAPES)
    expected = ["waits for computing", "on stream", *copies, "off stream"]
    assert calls == [*expected, "synchronized"]
    assert finding.state == "ok"
    assert registered == [finding.figures["room_bytes"]]


def test_copies_that_are_wrong_or_not_pinned_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy that was not waited for, and memory that CUDA did not pin."""
    tensors = pinned_memory.make_tensors("cpu")
    buffers = pinned_memory.make_buffers(tensors, is_pinned=False)
    assert pinned_memory.judge_copies(tensors, buffers).state == "problem"

    for tensor in tensors:
        buffers[tensor.name].copy_(tensor.parameter)
    assert pinned_memory.judge_copies(tensors, buffers).state == "warning"


@pytest.mark.parametrize(("size", "precision"), [(20, "bf16"), (264, "fp16")])
def test_attention_of_every_head_size_is_the_plain_one(
    size: int, precision: str
) -> None:
    """Those that a kernel takes only filled up, and those that it does not take."""
    dtype = attention_kernels.DTYPES[precision]
    compared = attention_kernels.compare_head_size(size, dtype, "cpu")

    assert compared.is_sound and not compared.used_varlen
    assert any("attention" in name for name in compared.kernels)
    finding = attention_kernels.judge_comparison(compared, precision, on_gpu=False)
    assert (finding.state, finding.what) == ("ok", f"{precision}_{size}")


def see_all(*tensors: Any, row: Any, **unused: Any) -> Any:
    """Attention that lets examples of a row see each other."""
    row = packed_attention.Row([sum(row.lengths)])
    return attend(*tensors, row=row)


def scale_as_filled(*tensors: Any, row: Any, **unused: Any) -> Any:
    """Attention by the scale of a head that was filled up to 24."""
    return attend(*tensors, row=row, scaling=24**-0.5)


attend = packed_attention.attend


@pytest.mark.parametrize("wrong", [see_all, scale_as_filled])
def test_attention_that_is_not_the_plain_one_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    """In half precision, where a wrong scale is more than rounding."""

    def attend_wrongly(module: Any, query: Any, *others: Any, row: Any) -> Any:
        is_plain = query.dtype == torch.float32
        chosen = attend if is_plain else wrong
        return chosen(module, query, *others, row=row)

    monkeypatch.setattr(packed_attention, "attend", attend_wrongly)
    compared = attention_kernels.compare_head_size(20, torch.float16, "cpu")
    finding = attention_kernels.judge_comparison(compared, "fp16", on_gpu=False)

    assert finding.state == "problem"
    assert compared.leaks == (wrong is see_all)
    assert ("changes when the one beside it" in finding.text) == compared.leaks


def test_a_gpu_that_does_without_the_kernel_is_a_problem() -> None:
    """Of heads that the kernel takes; larger ones it does not."""
    compared = attention_kernels.compare_head_size(16, torch.bfloat16, "cpu")
    finding = attention_kernels.judge_comparison(compared, "bf16", on_gpu=True)
    assert finding.state == "problem"
    assert "varlen kernel was not used" in finding.text

    larger = attention_kernels.compare_head_size(264, torch.bfloat16, "cpu", [5, 9])
    finding = attention_kernels.judge_comparison(larger, "bf16", on_gpu=True)
    assert finding.state == "ok"


def test_tokens_that_differ_on_the_device_are_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal logits must give equal ones."""
    monkeypatch.setattr(evaluating_checks, "VOCAB", 300)
    monkeypatch.setattr(evaluating_checks, "ROWS", 3)
    context = make_context(device="cpu")
    [finding] = evaluating_checks.check_drawn_tokens(context)
    assert finding.state == "ok"

    draws = iter([torch.tensor([1, 2, 3]), torch.tensor([1, 5, 3])])
    monkeypatch.setattr(evaluating_checks, "draw_tokens", lambda *given: next(draws))
    [finding] = evaluating_checks.check_drawn_tokens(context)
    assert (finding.state, finding.figures) == ("problem", {"differing": 1.0})


def test_layers_on_two_gpus_give_the_logits_of_one(
    tmp_path: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two that the rank sees first; with one nothing is looked at."""
    context = make_context(folder=tmp_path)
    (context.bench / "bases" / evaluating_checks.BASE).mkdir(parents=True)
    logits = {2: torch.tensor([1.0, 2.0]), 1: torch.tensor([1.0, 2.5])}
    loaded: list[list[str]] = []

    def load(used: list[str], *given: Any) -> Any:
        loaded.append(used)
        return logits[len(used)]

    monkeypatch.setattr(evaluating_checks, "load_on", load)
    monkeypatch.setattr(
        evaluating_checks, "compute_logits", lambda llama, device: llama
    )
    [finding] = evaluating_checks.check_spread_layers(context)
    assert loaded == [["cuda:0", "cuda:1"], ["cuda:0"]]
    assert finding.state == "problem"
    logits[1] = logits[2]
    assert evaluating_checks.check_spread_layers(context)[0].state == "ok"
    cuda.count = 1
    assert evaluating_checks.check_spread_layers(context)[0].state == "skipped"


TRIAL = Trial(
    name="1B",
    shape=DecoderShape(
        hidden=64,
        intermediate=128,
        layers=2,
        heads=4,
        kv_heads=4,
        head_dim=16,
        vocab=600,
        tied=True,
    ),
    precision="bf16",
    zero_stage=1,
    batch=8,
    max_length=128,
    micro_tokens=512,
    held_bytes=8e9,
    need_bytes=10e9,
)


@pytest.mark.parametrize(
    ("measured", "state"), [(10.2e9, "ok"), (10.6e9, "problem"), (7e9, "warning")]
)
def test_memory_beyond_what_was_predicted_is_a_problem(
    measured: float, state: str
) -> None:
    """Plan would admit what does not fit; far less is a warning."""
    finding = training_trials.judge_need(TRIAL, measured, 11e9, on_gpu=True)

    assert finding.state == state
    assert (finding.assumed, finding.unit) == (10, "GB")
    assert finding.measured == pytest.approx(measured / 1e9)
    assert finding.figures["reserved_gb"] == 11


@pytest.mark.parametrize(
    ("mfu", "state"), [(0.4, "ok"), (0.3, "warning"), (0.55, "warning")]
)
def test_a_share_of_the_peak_that_is_another_is_told_as_a_line_of_the_profile(
    mfu: float, state: str
) -> None:
    """Its key is the one by which it may be written to the profile."""
    finding = training_trials.judge_mfu(mfu, 0.4)

    assert (finding.what, finding.state) == ("mfu", state)
    assert (finding.assumed, finding.measured) == (0.4, mfu)
    assert (f"gpu.mfu: {mfu:.2f}" in finding.advice) == (state != "ok")


def test_the_share_is_of_the_profile_s_peak() -> None:
    """Without a GPU in the profile there is none."""
    speeds = Speeds(
        tokens_per_s=1000,
        tflops=156,
        stall_s=0.5,
        plain_save_s=4,
        written_bytes=2e9,
        written_s=4,
    )
    context = make_context()
    mfu = by_key(training_trials.judge_speed(context, TRIAL, speeds))["mfu"]
    assert mfu.measured == 0.5

    context.request = msgspec.structs.replace(REQUEST, gpu=None)
    assert "mfu" not in by_key(training_trials.judge_speed(context, TRIAL, speeds))

    context.speeds = speeds
    [stall] = training_trials.check_stall(context)
    assert (stall.state, stall.assumed, stall.measured) == ("warning", 0.3, 0.5)
    assert stall.figures == {"plain_save_s": 4, "written_gb_per_s": 0.5}


@pytest.mark.parametrize(("tflops", "state"), [(250, "ok"), (150, "warning")])
def test_a_gpu_far_below_its_peak_is_told(tflops: float, state: str) -> None:
    """Something holds it back."""
    finding = matrix_products.judge_ceiling(make_context(), tflops)
    assert (finding.state, finding.assumed) == (state, 312)


def test_trials_are_the_request_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, stage, precision, batch and budget are those that plan reckons with."""
    trial = msgspec.structs.replace(TRIAL, zero_stage=3, hpz_ranks=2, recompute=True)
    run = training_trials.make_run(trial, "memory", 2)
    bench = small_training.Bench(Ranks(0, 2, 0), "cuda:0", Path("/nowhere"))
    job = small_training.make_job(run, bench)

    assert job.deepspeed["zero_optimization"]["stage"] == 3
    assert job.deepspeed["zero_optimization"]["zero_hpz_partition_size"] == 2
    assert job.deepspeed["bf16"]["enabled"]
    assert (job.micro_tokens, job.recompute) == (512, True)
    assert (job.train["batch"], job.train["steps"]) == (8, 2)
    context = make_context(device="cuda:0")
    assert training_trials.choose_trial(context) is None
    assert [f.state for f in training_trials.check_memory(context)] == ["skipped"]


def test_a_step_that_is_timed_fills_a_micro_batch_on_each_rank() -> None:
    """By real lengths, which are a third of the longest; never less than the request's."""
    batch = training_trials.choose_speed_batch(TRIAL, 4)
    tokens = sum(training_trials.draw_lengths(batch * 100, 128)) / 100

    assert tokens == pytest.approx(4 * 512, rel=0.1)
    few = msgspec.structs.replace(TRIAL, micro_tokens=16)
    assert training_trials.choose_speed_batch(few, 1) == TRIAL.batch


def test_a_meeting_s_words_pass_through_torch_s_own_store() -> None:
    """As they are, also where they are empty."""
    from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

    meeting = Meeting(Ranks(0, 1, 0), HashStore(), 5.0)
    assert meeting.exchange("empty", "") == [""]
    assert meeting.exchange("words", 'a "b"\nü') == ['a "b"\nü']
    absent = Meeting(Ranks(0, 2, 0), HashStore(), 0.1).exchange("gone", "x")
    assert absent == ["x", None]

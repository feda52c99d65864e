"""Is an optimizer made by its name, with the settings of its run, and counted by plan as
it is?"""

import pytest
import torch

from jobs.training import optimizer as optimizers
from jobs.training.optimizer import build_optimizer, optimizer
from zsg_core.errors import UserError
from zsg_core.training import estimate
from zsg_core.training import optimizers as rows
from zsg_core.training.optimizers import OptimizerRow

SETTINGS = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}


def test_adamw_trains_what_is_to_be_trained():
    """Its settings are the recipe's, and a frozen weight is not among its parameters."""
    model = torch.nn.Linear(2, 3)
    model.bias.requires_grad = False

    made = build_optimizer(model, SETTINGS, zero_stage=1)

    [group] = made.param_groups
    assert isinstance(made, torch.optim.AdamW)
    assert group["params"] == [model.weight]
    assert {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")} == {
        **SETTINGS,
        "betas": (0.9, 0.95),
    }


def test_adamw_remembers_what_plan_counts():
    """Two moments of fp32 for each parameter, counted by torch."""
    model = torch.nn.Linear(10, 10, bias=False)
    made = build_optimizer(model, SETTINGS, zero_stage=1)
    model(torch.ones(1, 10)).sum().backward()
    made.step()

    [state] = made.state.values()
    moments = [value for key, value in state.items() if key != "step"]
    assert sum(value.nbytes for value in moments) == 100 * rows.ADAMW.state_bytes


def test_an_optimizer_is_a_row_and_a_function(monkeypatch):
    """A new one is made by its name, counted by its row, and kept to its ZeRO stages."""
    row = OptimizerRow(name="plain_sgd", state_bytes=0, zero_stages=(1, 2))
    monkeypatch.setitem(rows.OPTIMIZER_ROWS, row.name, row)
    monkeypatch.setattr(optimizers, "_BUILDERS", dict(optimizers._BUILDERS))

    @optimizer("plain_sgd")
    def build_plain_sgd(parameters, settings):
        return torch.optim.SGD(parameters, lr=settings["lr"])

    model = torch.nn.Linear(2, 2)
    made = build_optimizer(model, SETTINGS, zero_stage=1, name="plain_sgd")
    assert isinstance(made, torch.optim.SGD)
    with pytest.raises(UserError, match="zero_stage 3; it does at 1, 2"):
        build_optimizer(model, SETTINGS, zero_stage=3, name="plain_sgd")
    held = estimate.estimate_tensors(1000, 1, 1, "bf16", optimizer=row)
    assert held.optimizer == 4 * 1000  # the master weights alone


def test_an_optimizer_without_a_row_is_refused():
    """Plan could not say what it takes."""
    with pytest.raises(UserError, match=r"unknown optimizer 'lion'; known: adamw"):
        optimizer("lion")

"""What is done about every run, and what must be made first?"""

from dataclasses import replace

import pytest

from launcher.grids.selection import Selection
from launcher.planning.plan import (
    MOST_GROUPS,
    Action,
    Allow,
    choose_actions,
    make_plan,
    run_item,
)
from launcher.status.status import JobState
from tests.lib.planned_runs import a_run, planned
from zsg_core.errors import UserError
from zsg_core.training.schedule import list_checkpoint_steps


def done(every: int) -> JobState:
    """A finished run of 40 steps that was measured at every so many."""
    return JobState(
        state="done", steps=40, checkpoints=tuple(list_checkpoint_steps(40, every))
    )


RETRY, RETRAIN, NOTHING, BOTH = (
    Allow(retry=True),
    Allow(retrain=True),
    Allow(),
    Allow(retry=True, retrain=True),
)
ALWAYS = [NOTHING, RETRY, RETRAIN, BOTH]


@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        pytest.param(
            JobState(state="absent"), ["submit"] * 4, id="a new run is submitted"
        ),
        pytest.param(
            JobState(state="waiting"), ["skip"] * 4, id="a waiting run is left alone"
        ),
        pytest.param(
            JobState(state="queued"), ["skip"] * 4, id="a queued run is left alone"
        ),
        pytest.param(
            JobState(state="running"), ["skip"] * 4, id="a running run is left alone"
        ),
        pytest.param(done(every=10), ["skip"] * 4, id="a finished run is left alone"),
        pytest.param(
            done(every=5), ["skip"] * 4, id="a finer stride holds the wanted steps"
        ),
        pytest.param(
            done(every=20),
            ["skip", "skip", "retrain", "retrain"],
            id="a coarser stride is trained again only with --retrain",
        ),
        pytest.param(
            done(every=4),
            ["skip", "skip", "retrain", "retrain"],
            id="a stride that misses wanted steps is trained again only with --retrain",
        ),
        pytest.param(
            JobState(state="failed"),
            ["skip", "retry", "skip", "retry"],
            id="a failed run goes again only with --retry",
        ),
        pytest.param(
            JobState(state="cancelled"),
            ["skip", "retry", "skip", "retry"],
            id="a cancelled run goes again only with --retry",
        ),
        pytest.param(
            JobState(state="waiting", stopped=True, saved=7),
            ["submit"] * 4,
            id="a run stopped by its time limit goes on without being asked",
        ),
        pytest.param(
            JobState(state="unknown"),
            ["skip", "retry", "skip", "retry"],
            id="a run of which nothing is known goes again only with --retry",
        ),
    ],
)
def test_what_is_done_about_a_run(state, kinds):
    """The action follows from the run's state and from what the user allows."""
    run = a_run()

    assert [
        choose_actions([run], {run_item(run): state}, allow)[0].kind for allow in ALWAYS
    ] == kinds


HAD = [
    {"step": step, "probe_loss": 50.0 - step, "kept": step == 40} for step in (20, 40)
]


@pytest.mark.parametrize(
    ("wanted", "lacks"),
    [
        pytest.param(
            {"snapshots": 20, "keep": "last"}, None, id="what it was trained with"
        ),
        pytest.param(
            {"snapshots": 20, "keep": {"best": 1}},
            None,
            id="another rule that names the same",
        ),
        pytest.param({"snapshots": 20}, 20, id="one that was removed"),
        pytest.param(
            {"snapshots": 10, "keep": "last"}, 10, id="one that was never written"
        ),
    ],
)
def test_snapshots_that_a_finished_run_lacks_need_training(wanted, lacks):
    """Weights cannot be made afterwards: plan says which are missing, and trains again
    only with --retrain."""
    run = a_run(checkpoints={"every": 10, **wanted})
    state = replace(done(every=10), snapshots=tuple(HAD))
    [action] = choose_actions([run], {run_item(run): state}, NOTHING)
    [allowed] = choose_actions([run], {run_item(run): state}, RETRAIN)

    assert (allowed.kind == "retrain") == (lacks is not None)
    assert (
        action.reason == "already done"
        if lacks is None
        else f"(the first: step {lacks})" in action.reason
    )


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        pytest.param(JobState(state="absent"), "new", id="new"),
        pytest.param(JobState(state="queued"), "already queued", id="active"),
        pytest.param(done(every=10), "already done", id="done"),
        pytest.param(
            JobState(state="failed", cause="out of memory", evidence="CUDA error"),
            "failed: out of memory: CUDA error (zsg retry submits it again)",
            id="failed, with the cause, the evidence and what to do",
        ),
        pytest.param(
            JobState(state="waiting", stopped=True, saved=7),
            "resumes from step 7",
            id="stopped by its time limit",
        ),
        pytest.param(
            JobState(state="cancelled", cause="signal", saved=7),
            "cancelled: signal (zsg retry --only state=cancelled submits it again and resumes from"
            " step 7)",
            id="cancelled, with a state",
        ),
        pytest.param(
            done(every=20),
            "done, but 2 of the 5 checkpoints now wanted are missing (the first: step 10); "
            "it needs training again (--retrain)",
            id="done, but not what is wanted",
        ),
    ],
)
def test_an_action_says_why(state, reason):
    """The reason tells what was found, and which option would change the action."""
    run = a_run()

    assert choose_actions([run], {run_item(run): state}, NOTHING)[0].reason == reason


def test_actions_are_in_the_order_of_the_runs():
    """One action per run, as the grid gives them."""
    runs = [a_run(seed=seed) for seed in (2, 0, 1)]
    states = {run_item(run): JobState(state="absent") for run in runs}

    assert [action.run for action in choose_actions(runs, states, NOTHING)] == runs


def test_a_skipped_run_needs_nothing():
    """For what is not submitted nothing is made."""
    run = a_run()
    plan = make_plan([Action(run, "skip", "already done")], lambda need: False, {})

    assert ([], [], []) == (plan.acting, plan.prepares, plan.groups)


def test_runs_of_one_corpus_share_one_prepare():
    """Orders by task of one sample are made by one job, and all their runs wait for it
    as one array."""
    runs = [a_run("cluster"), a_run("round_robin"), a_run("random")]
    plan = planned(runs)
    (prepare,), (group,) = plan.prepares, plan.groups

    assert prepare.makes == {need for run in runs for need in run.needs}
    assert (prepare.runs, group.runs, group.after) == (runs, runs, (prepare.item,))


def test_every_corpus_has_a_prepare_of_its_own():
    """Different samples are made side by side, and no run waits for another's."""
    runs = [a_run(data={"sample_seed": seed}) for seed in (0, 1)]
    plan = planned(runs)

    assert [prepare.runs for prepare in plan.prepares] == [[run] for run in runs]
    assert [(group.after, group.runs) for group in plan.groups] == [
        ((prepare.item,), prepare.runs) for prepare in plan.prepares
    ]


def test_orders_without_similarity_do_not_wait_for_an_embedding():
    """`cluster` starts while the vectors for `nft` are still being made."""
    runs = [a_run("cluster"), a_run("nft"), a_run("fft")]
    plan = planned(runs)

    assert [prepare.runs for prepare in plan.prepares] == [runs[:1], runs[1:]]
    assert [group.runs for group in plan.groups] == [runs[:1], runs[1:]]


def test_nothing_that_is_made_is_made_again():
    """A prepare job makes only what is lacking."""
    one, other = a_run("cluster"), a_run("round_robin")
    (prepare,) = planned([one, other], made=set(one.needs)).prepares

    assert prepare.makes == other.needs - one.needs
    assert prepare.runs == [other]


def test_runs_whose_needs_are_made_wait_for_nothing():
    """With everything there is no prepare job and nothing to wait for; others keep
    waiting apart."""
    one, other = a_run("cluster"), a_run("round_robin")
    plan = planned([one, other], made=set(one.needs))

    assert [(group.runs, len(group.after)) for group in plan.groups] == [
        ([one], 0),
        ([other], 1),
    ]


def test_what_an_active_prepare_makes_is_awaited_and_not_made_twice():
    """Products of a job that is queued or running belong to it."""
    run = a_run()
    plan = planned([run], makers=dict.fromkeys(run.needs, "prepare/active"))

    assert plan.prepares == []
    assert [group.after for group in plan.groups] == [("prepare/active",)]


def test_a_run_may_wait_for_an_active_prepare_and_a_new_one():
    """What nobody makes yet is made; what somebody makes is awaited."""
    one, other = a_run("cluster"), a_run("round_robin")
    plan = planned([other], makers=dict.fromkeys(one.needs, "prepare/active"))
    (prepare,) = plan.prepares

    assert prepare.makes == other.needs - one.needs
    assert plan.groups[0].after == tuple(sorted(["prepare/active", prepare.item]))


def test_what_is_made_is_not_awaited_from_an_active_prepare():
    """A prepare job that still runs holds up nobody whose things are there already."""
    run = a_run()
    plan = planned(
        [run], made=set(run.needs), makers=dict.fromkeys(run.needs, "prepare/active")
    )

    assert [group.after for group in plan.groups] == [()]


def test_jobs_of_different_size_are_different_arrays():
    """The tasks of an array are equal."""
    runs = [a_run(nodes=1), a_run(nodes=2, seed=1), a_run(nodes=1, train={"lr": 1e-3})]
    plan = planned(runs, made={need for run in runs for need in run.needs})

    assert [(group.size.nodes, group.runs) for group in plan.groups] == [
        (1, [runs[0], runs[2]]),
        (2, [runs[1]]),
    ]


def test_a_prepare_is_named_by_what_it_makes():
    """The same plan made twice names the same folder, and another product another one."""
    one, other = a_run("cluster"), a_run("round_robin")
    names = {planned([run]).prepares[0].item for run in (one, one, other)}

    assert len(names) == 2
    assert all(name.startswith("prepare/") for name in names)


def test_each_run_is_in_exactly_one_group():
    """Nothing is submitted twice and nothing is forgotten."""
    orders, seeds = ["cluster", "random", "nft", "rt"], [0, 1, 2]
    runs = [a_run(order, seed=seed) for order in orders for seed in seeds]
    plan = planned(runs)

    assert sorted(run.id for group in plan.groups for run in group.runs) == sorted(
        run.id for run in runs
    )
    assert sorted(
        run.id for prepare in plan.prepares for run in prepare.runs
    ) == sorted(run.id for run in runs)


@pytest.mark.parametrize(
    ("quick", "lacks"),
    [
        pytest.param(
            {40: range(0, 41, 10)},
            "",
            id="the quick set at every checkpoint, the whole at its own",
        ),
        pytest.param(
            {40: [0, 20, 40]},
            "2 of the 5 checkpoints of loss_quick_40 now wanted",
            id="too few of the quick",
        ),
        pytest.param(
            {},
            "5 of the 5 checkpoints of loss_quick_40 now wanted",
            id="the whole set is another curve",
        ),
        pytest.param(
            {60: range(41)},
            "5 of the 5 checkpoints of loss_quick_40 now wanted",
            id="so are other items",
        ),
    ],
)
def test_a_quick_set_has_cells_of_its_own(quick, lacks):
    """A run measured at 0, 20 and 40 whole lacks no whole loss, and of the quick loss
    what it has not."""
    run = a_run(checkpoints={"every": 10, "quick": {"items": 40, "full_every": 20}})
    state = JobState(
        state="done",
        steps=40,
        checkpoints=(0, 20, 40),
        quick={f"loss_quick_{n}": tuple(of) for n, of in quick.items()},
    )
    [action] = choose_actions([run], {run_item(run): state}, NOTHING)

    assert action.reason.startswith(
        f"done, but {lacks} are missing" if lacks else "already done"
    )


def test_runs_that_are_not_selected_are_left_alone():
    """Whatever their state, and whatever else is allowed; what is selected is decided as ever."""
    runs = [
        a_run(seed=seed, train={"lr": lr})
        for seed, lr in ((0, 1e-3), (1, 1e-3), (2, 1e-4))
    ]
    states = {
        run_item(run): JobState(state=state)
        for run, state in zip(runs, ("failed", "absent", "done"), strict=True)
    }
    chosen = Allow(
        retry=True, selection=Selection.parse(["train.lr=0.001"], ["state=new"])
    )
    actions = choose_actions(runs, states, chosen)

    assert [action.kind for action in actions] == ["retry", "skip", "skip"]
    assert [action.reason for action in actions[1:]] == ["not selected"] * 2
    assert [
        run.id
        for group in make_plan(actions, lambda need: False, {}).groups
        for run in group.runs
    ] == [runs[0].id]


def test_a_selection_that_names_no_run_of_the_grid_is_refused():
    """A slip is told with the values that there are."""
    run = a_run()
    chosen = Allow(selection=Selection.parse(["train.batch=17"], []))

    with pytest.raises(UserError, match="no run has this value; its values are 16"):
        choose_actions([run], {run_item(run): JobState(state="absent")}, chosen)


@pytest.mark.parametrize(("corpora", "arrays"), [(20, 20), (21, 1)])
def test_many_groups_become_one_that_waits_for_the_end_of_all(corpora, arrays):
    """Up to 20 arrays each wait for what they need; more are one, and each run keeps
    what it needs itself."""
    runs = [a_run(data={"sample_seed": seed}) for seed in range(corpora)]
    plan = planned(runs)

    assert len(plan.groups) == arrays
    assert {group.whatever_they_made for group in plan.groups} == {arrays == 1}
    assert sorted(item for group in plan.groups for item in group.after) == sorted(
        p.item for p in plan.prepares
    )
    assert [plan.needed[run.id] for run in runs] == [
        (prepare.item,) for prepare in plan.prepares
    ]


def test_groups_of_other_sizes_or_with_nothing_to_wait_for_stay_apart():
    """The tasks of an array are equal, and who need not wait does not."""
    runs = [a_run(data={"sample_seed": seed}, nodes=1 + seed % 2) for seed in range(30)]
    ready = a_run(data={"sample_seed": 99})
    plan = planned([*runs, ready], made=set(ready.needs))

    assert [
        (group.size.nodes, len(group.runs), bool(group.after)) for group in plan.groups
    ] == [
        (1, 1, False),
        (1, 15, True),
        (2, 15, True),
    ]


def test_among_many_arrays_a_run_is_submitted_before_those_that_start_from_it() -> None:
    """Else they would have nothing to wait for."""
    firsts = [a_run(data={"sample_seed": seed}) for seed in range(MOST_GROUPS + 2)]
    seconds = [
        replace(a_run(data={"sample_seed": 100 + seed}), before=run)
        for seed, run in enumerate(firsts)
    ]
    plan = planned(seconds)

    seen: set[str] = set()
    for group in plan.groups:
        assert {item for item in group.after if item.startswith("runs/")} <= seen
        seen |= {run_item(run) for run in group.runs}
    assert len(seen) == len(firsts + seconds)


def test_a_new_model_over_data_that_is_arranged_is_proven_by_one_prepare() -> None:
    """Whatever the corpora: it makes the proof alone, and all its runs wait for it."""
    runs = [
        replace(a_run(data={"train_per_task": count}), proof="0123456789ab")
        for count in (1, 2)
    ]
    made = {run.arrangement_item for run in runs} | {f"bases/{r.base_id}" for r in runs}
    plan = planned(runs, made=made)
    (prepare,), (group,) = plan.prepares, plan.groups

    assert prepare.makes == {"model-proofs/0123456789ab"}
    assert prepare.description == "tries"
    assert (group.after, group.runs) == ((prepare.item,), runs)
    assert planned(runs, made=made | prepare.makes).prepares == []


def test_a_model_that_may_be_refused_ends_no_runs_of_others() -> None:
    """What two models share is made by one job, each is proven by a job of its own, for
    which only its runs wait; a model alone is proven by the job that makes the rest."""
    one = replace(a_run(), proof="0123456789ab")
    other = replace(a_run(train={"lr": 1e-3}), proof="ba9876543210")
    plan = planned([one, other])
    shared, first, second = plan.prepares

    assert first.makes == {"model-proofs/0123456789ab"}
    assert second.makes == {"model-proofs/ba9876543210"}
    assert one.arrangement_item in shared.makes
    assert set(plan.needed[one.id]) == {shared.item, first.item}
    assert set(plan.needed[other.id]) == {shared.item, second.item}
    (alone,) = planned([one]).prepares
    assert alone.makes >= {one.arrangement_item, "model-proofs/0123456789ab"}


def test_a_proof_is_asked_of_the_shortest_examples_of_all_its_runs() -> None:
    """Of whatever corpus: where these are too long, all are; longer ones end only their
    own run."""
    runs = [
        replace(
            a_run(data={"train_per_task": count}, train={"max_length": length}),
            proof="0123456789ab",
        )
        for count, length in ((1, 512), (2, 256), (3, 1024))
    ]
    proving = [
        p for p in planned(runs).prepares if "model-proofs/0123456789ab" in p.makes
    ]

    assert [p.shortest for p in proving] == [{"model-proofs/0123456789ab": 256}]

"""Is a profile found, laid over its parents, and refused where it could do harm?"""

import pytest

from launcher.clusters import profiles, sbatch_options
from launcher.clusters.profiles import Profile
from launcher.workspace.shipped import find_shipped
from zsg_core.errors import UserError

SHIPPED = sorted(path.stem for path in find_shipped("cluster_profiles").glob("*.yaml"))


@pytest.fixture
def load(tmp_path):
    """Reads a text as a profile file."""

    def read(text: str) -> Profile:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return profiles.load_profile(str(path), tmp_path)

    return read


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_loads_under_its_own_name(name, tmp_path):
    """What zsg ships is valid, and the name in a file is the file's."""
    assert profiles.load_profile(name, tmp_path).name == name


def test_a_local_profile_is_shipped():
    """zsg works without a cluster."""
    assert "local" in SHIPPED


def test_a_profile_beside_the_grid_goes_first(tmp_path, monkeypatch):
    """Looked for beside the grid, then in the current folder, then among the shipped ones."""
    for place, runs in (("grids", 11), ("here", 12)):
        (tmp_path / place / "cluster_profiles").mkdir(parents=True)
        text = f"name: local\nkind: local\nmax_parallel: {runs}\n"
        (tmp_path / place / "cluster_profiles/local.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "here")

    beside, here = (
        profiles.load_profile("local", tmp_path / "grids"),
        profiles.load_profile("local", tmp_path),
    )
    monkeypatch.chdir(tmp_path)
    last = profiles.load_profile("local", tmp_path)

    assert (11, 12) == (beside.max_parallel, here.max_parallel)
    assert last.max_parallel not in (11, 12)


def test_an_unknown_name_is_told_what_is_known(tmp_path):
    """The message lists the profiles there are."""
    with pytest.raises(
        UserError,
        match=r"profile 'a800x' not found\..* Known: .*local.*path of a \.yaml file",
    ):
        profiles.load_profile("a800x", tmp_path)


@pytest.mark.parametrize(
    "name", ["../local", "x/../local", "/etc/passwd", "", "a\0b", "x" * 300]
)
def test_a_name_is_no_path(name, tmp_path):
    """A name cannot reach outside the folders of profiles."""
    with pytest.raises(UserError, match="not found"):
        profiles.load_profile(name, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param(
            "name: a\nkind: slurm\nslurm:\n  particion: x\n",
            4,
            "Did you mean 'partition'",
            id="a key",
        ),
        pytest.param(
            "name: a\nkind: slurm\ntrian: {}\n",
            3,
            "Did you mean 'train'",
            id="a key at the top",
        ),
        pytest.param(
            "name: a\nkind: slrum\n",
            2,
            "'local' or 'slurm', found 'slrum'",
            id="a kind",
        ),
        pytest.param(
            "name: a\nkind: slurm\ntrain: {nodes: 0}\n", 3, "train.nodes", id="no nodes"
        ),
        pytest.param(
            "name: a\nkind: slurm\ndeepspeed: {zero_stage: 4}\n",
            3,
            "deepspeed.zero_stage",
            id="a ZeRO stage",
        ),
        pytest.param(
            "name: a\nkind: slurm\ndeepspeed: {zero_stage: 2, hpz_ranks: 8}\n",
            3,
            "deepspeed.hpz_ranks",
            id="a second copy of what is whole",
        ),
        pytest.param("kind: local\n", 1, "name is missing", id="no name"),
        pytest.param("[]\n", 1, "a profile is a mapping", id="a list"),
        pytest.param("", 1, "a profile is a mapping", id="an empty file"),
        pytest.param(
            "name: a\nkind: local\nprepare: {nodes: 2}\n",
            3,
            "one process",
            id="prepare on two nodes",
        ),
        pytest.param(
            "name: a\nkind: local\nprepare: {ranks_per_node: 2}\n",
            3,
            "one process",
            id="prepare of two ranks",
        ),
        pytest.param(
            "name: a\nkind: local\nsetup: module load x\n",
            3,
            "setup",
            id="setup that is no list",
        ),
        pytest.param(
            "name: a\nkind: local\nfunction-x: 1\n",
            3,
            "unknown key 'function-x'",
            id="a key like our own",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(load, text, line, said):
    """The message has file and line, what was found, and the nearest name."""
    with pytest.raises(UserError) as error:
        load(text)

    assert f"mine.yaml:{line}: " in str(error.value)
    assert said in str(error.value)


HOSTILE = {
    "a blank": "a b",
    "a newline": "a\\nb",
    "a last newline": "a\\n",
    "a quote": "a'b",
    "a double quote": 'a\\"b',
    "a command": "$(id)",
    "a variable": "$HOME",
    "a backtick": "`id`",
    "a semicolon": "a;b",
    "a redirection": "a>b",
    "a comment": "#x",
    "a backslash": "a\\\\b",
    "a null": "a\\0b",
}
FIELDS = ["partition", "account", "qos", "constraint", "gres"]


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize(
    "place",
    [
        *(f"slurm: {{{field}: VALUE}}" for field in FIELDS),
        "slurm: {srun_args: [VALUE]}",
        "environment: {set: {X: VALUE}}",
        "environment: {set: {VALUE: x}}",
        "environment: {keep: [VALUE]}",
    ],
)
def test_nothing_that_a_shell_could_read_reaches_sbatch(load, place, value):
    """Every field that is written to a script or a command line takes plain words only."""
    text = place.replace("VALUE", f'"{value}"')

    with pytest.raises(UserError, match=r"mine\.yaml:3: "):
        load(f"name: a\nkind: slurm\n{text}\n")


@pytest.mark.parametrize("name", ["a b", "a/b", "../a", "", ".a", "$(id)", "a\\nb"])
def test_a_profile_has_a_plain_name(load, name):
    """A profile's name is a plain word."""
    with pytest.raises(UserError, match=r"mine\.yaml:1: name"):
        load(f'name: "{name}"\nkind: local\n')


@pytest.mark.parametrize(
    "value",
    ["gpu:a800:8", "a100,80g", "main", "user@site", "rack=1", "x+y", "a/b", "v1.2"],
)
def test_what_slurm_options_are_made_of_is_taken(load, value):
    """The words of real clusters pass."""
    assert (
        load(f'name: a\nkind: slurm\nslurm: {{gres: "{value}"}}\n').slurm.gres == value
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            "slurm:\n  sbatch:\n    exclusiv: true",
            5,
            "no option --exclusiv. Did you mean 'exclusive'?",
        ),
        (
            "slurm:\n  sbatch: {partition: x}",
            4,
            "zsg sets --partition itself, by slurm.partition",
        ),
        ("slurm:\n  sbatch: {time: 60}", 4, "by train.time_min and prepare.time_min"),
        ("slurm:\n  sbatch: {array: 0-3}", 4, "zsg sets --array itself"),
        ("slurm:\n  sbatch: {hold: true}", 4, "its jobs depend on it"),
        (
            "slurm:\n  sbatch: {clusters: 'a,b'}",
            4,
            "slurm.sbatch.clusters: a,b is not one cluster",
        ),
        (
            "slurm:\n  sbatch: {clusters: all}",
            4,
            "slurm.sbatch.clusters: all is not one cluster",
        ),
        ("slurm:\n  sbatch: {clusters: true}", 4, "is not one cluster"),
        (
            "environment:\n  keep: [HOME, SLURM_EXACT]",
            4,
            "SLURM_EXACT is an option of Slurm's own programs",
        ),
        (
            "environment:\n  keep: [SBATCH_QOS]",
            4,
            "SBATCH_QOS is an option of Slurm's own programs",
        ),
        ('slurm:\n  sbatch: {comment: "a\\nb"}', 4, "slurm.sbatch.comment"),
        ('slurm:\n  sbatch: {comment: "a`id`"}', 4, "slurm.sbatch.comment"),
        ('slurm:\n  sbatch: {comment: "a\\\\"}', 4, "slurm.sbatch.comment"),
        (
            "slurm:\n  sbatch: {requeue: true}",
            4,
            "zsg sets --requeue itself, but for --requeue=expedite;",
        ),
        ("slurm:\n  sbatch: {requeue: 'no'}", 4, "zsg sets --requeue itself"),
        ("slurm:\n  sbatch: {container-id: x}", 4, "by container.prefix"),
        ("slurm:\n  sbatch: {exclusive: false}", 4, "slurm.sbatch.exclusive"),
        ("slurm:\n  sbatch: {--nice: 1}", 4, "slurm.sbatch"),
        ("slurm: {gres: gpu:8, gpus_by: gpus}", 3, "leave slurm.gpus_by out"),
        ("slurm: {gres: gpu:8, gpu_type: a800}", 3, "leave slurm.gpu_type out"),
        (
            "slurm: {gres: 'nvme:9,gpu:a800:4'}\nevaluate: {gpus: 5}",
            4,
            "evaluate.gpus is 5, but slurm.gres is nvme:9,gpu:a800:4",
        ),
        ("slurm: {gres: gpu}\nevaluate: {gpus: 2}", 4, "but slurm.gres is gpu:"),
        ("slurm: {gres: nvme:9}\nevaluate: {gpus: 2}", 4, "gpus_per_node is 0"),
        (
            "slurm: {gpus_by: gpu}",
            3,
            "'gpus-per-node', 'gres', 'gpus' or 'gpus-per-task'",
        ),
        ("network: {interfaces: ['=bond0']}", 3, "network.interfaces"),
        (
            "network: {hcas: [mlx5]}\nenvironment: {set: {NCCL_IB_HCA: x}}",
            4,
            "sets NCCL_IB_HCA already",
        ),
        ("container: {python: /opt/python}", 3, "only with a container.prefix"),
        ("container: {prefix: [a b]}", 3, "container.prefix"),
        ("environment: {cache: tmp}", 3, "environment.cache"),
        ("environment: {cache: '/x/$(id)'}", 3, "environment.cache"),
        ("max_gpus: 0", 3, "max_gpus"),
    ],
)
def test_what_contradicts_or_cannot_be_passed_on_is_refused(load, text, line, said):
    """An option of sbatch that zsg sets, or that there is not; two settings of one
    thing; what a shell could read."""
    with pytest.raises(UserError) as error:
        load(f"name: a\nkind: slurm\n{text}\n")

    assert f"mine.yaml:{line}: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("gres", ["gpu:3", "gpu:a800:3,nvme:1", "gpu:a:1,gpu:b:2"])
def test_an_evaluator_may_take_the_gpus_of_gres(load, gres):
    """Where they are written out, gpus_per_node says nothing of them."""
    text = f"name: a\nkind: slurm\nslurm: {{gres: '{gres}'}}\nevaluate: {{gpus: 3}}\n"

    assert load(text).evaluate.gpus == 3


@pytest.mark.parametrize(
    "option",
    [
        "nodelist: 'n[1-4,7],m3'",
        "comment: 'a note; with #1, \"quotes\" and it''s blank'",
        "begin: now+1 hour",
        "licenses: 'matlab@db:2|ansys'",
        "requeue: expedite",
        "spread-segments: true",
        "resources: 'flat(rack1):4'",
    ],
)
def test_option_values_are_taken_as_sbatch_takes_them(load, option):
    """Node lists with brackets, values with blanks, and what newer releases of Slurm have."""
    profile = load(f"name: a\nkind: slurm\nslurm: {{sbatch: {{{option}}}}}\n")

    assert list(profile.slurm.sbatch) == [option.partition(":")[0]]


@pytest.mark.parametrize("value", ["a100&ib", "[rack1|rack2]", "a100*2", "!old"])
def test_constraints_join_features_as_slurm_has_them(load, value):
    """They are quoted where they are written."""
    assert (
        load(
            f'name: a\nkind: slurm\nslurm: {{constraint: "{value}"}}\n'
        ).slurm.constraint
        == value
    )


@pytest.mark.parametrize(
    "value", ["$TMPDIR", "$SLURM_TMPDIR/x", "/scratch/$USER", "/local", "/a/b.c/d-e"]
)
def test_a_cache_is_a_folder_that_may_depend_on_the_node(load, value):
    """A variable of the node's, or a path with one in it."""
    assert (
        load(
            f'name: a\nkind: slurm\nenvironment: {{cache: "{value}"}}\n'
        ).environment.cache
        == value
    )


def test_interfaces_are_named_once_for_nccl_and_gloo(load):
    """NCCL takes whole names only after a `=`, which gloo does not know."""
    profile = load(
        "name: a\nkind: slurm\nnetwork: {interfaces: [bond0, eth1], hcas: [mlx5_0]}\n"
    )

    assert profile.network.variables == {
        "NCCL_SOCKET_IFNAME": "=bond0,eth1",
        "GLOO_SOCKET_IFNAME": "bond0,eth1",
        "NCCL_IB_HCA": "=mlx5_0",
    }


def test_setup_lines_are_kept_verbatim(load):
    """`setup` is the one place for shell text, and is not touched."""
    lines = load(
        'name: a\nkind: slurm\nsetup:\n  - source "$HOME/my env/bin/activate"\n'
    ).setup

    assert lines == ['source "$HOME/my env/bin/activate"']


def test_variables_of_a_job_follow_its_size(load):
    """Threads are the CPUs of a process, unless the profile sets them itself."""
    profile = load(
        "name: a\nkind: slurm\ntrain: {cpus_per_rank: 6}\nenvironment: {set: {NCCL_DEBUG: WARN}}\n"
    )

    assert profile.environment.make_variables(profile.train) == {
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "6",
        "NCCL_DEBUG": "WARN",
    }


@pytest.fixture
def family(tmp_path):
    """Writes profile files below cluster_profiles/, by name, and reads the one asked for."""
    folder = tmp_path / "cluster_profiles"
    folder.mkdir()

    def read(child: str, /, **files: str) -> Profile:
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return profiles.load_profile(child, tmp_path)

    return read


PARENT = """name: parent
kind: slurm
train: {nodes: 2, cpus_per_rank: 8}
slurm: {partition: gpu, srun_args: [--a, --b]}
environment: {set: {A: "1", B: "2"}}
setup: [module load x]
"""


@pytest.mark.parametrize(
    ("said", "place", "expected"),
    [
        pytest.param(
            "",
            "train",
            {"nodes": 2, "cpus_per_rank": 8},
            id="nothing said: the parent's",
        ),
        pytest.param(
            "train: {nodes: 4}",
            "train",
            {"nodes": 4, "cpus_per_rank": 8},
            id="a key of a mapping",
        ),
        pytest.param(
            "environment: {set: {B: x, C: y}}",
            "environment.set",
            {"A": "1", "B": "x", "C": "y"},
            id="deep",
        ),
        pytest.param(
            "slurm: {srun_args: [--c]}",
            "slurm",
            {"partition": "gpu", "srun_args": ["--c"]},
            id="a list",
        ),
        pytest.param(
            "slurm: {partition: null}",
            "slurm",
            {"partition": None, "srun_args": ["--a", "--b"]},
            id="null",
        ),
        pytest.param("setup: []", "", {"setup": []}, id="an empty list"),
    ],
)
def test_a_child_is_laid_over_its_parent(family, said, place, expected):
    """Mappings are laid over one another key by key; everything else, lists too, is
    replaced whole."""
    values = family(
        "child", parent=PARENT, child=f"name: child\ninherits: parent\n{said}\n"
    ).model_dump()
    for key in place.split(".") if place else []:
        values = values[key]

    assert {key: values[key] for key in expected} == expected


def test_a_chain_of_three_reads_the_nearest_first(family):
    """A grandparent counts where neither child nor parent says anything."""
    middle = "name: middle\ninherits: parent\ntrain: {nodes: 3}\n"
    child = family(
        "child",
        parent=PARENT,
        middle=middle,
        child="name: child\ninherits: middle\nmax_parallel: 7\n",
    )

    assert (
        child.name,
        child.max_parallel,
        child.train.nodes,
        child.train.cpus_per_rank,
    ) == (
        "child",
        7,
        3,
        8,
    )


@pytest.mark.parametrize(
    ("files", "place", "said"),
    [
        pytest.param(
            {
                "child": "name: c\ninherits: parent\n",
                "parent": "name: p\nkind: slurm\nslurm:\n  particion: x\n",
            },
            "parent.yaml:4: ",
            "Did you mean 'partition'",
            id="a key of the parent",
        ),
        pytest.param(
            {
                "child": "name: c\ninherits: parent\nslurm:\n  particion: x\n",
                "parent": PARENT,
            },
            "child.yaml:4: ",
            "Did you mean 'partition'",
            id="a key of the child",
        ),
        pytest.param(
            {
                "child": "name: c\n\ninherits: parent\ntrain: {nodes: 0}\n",
                "parent": PARENT,
            },
            "child.yaml:4: ",
            "train.nodes",
            id="a value of the child over a good one",
        ),
        pytest.param(
            {
                "child": "name: c\nkind: slurm\ninherits: p\ntrain: {time_min: 9}\n",
                "p": "train:\n  nodes: x\n",
            },
            "p.yaml:2: ",
            "train.nodes",
            id="a value of the parent in a mapping of both",
        ),
        pytest.param(
            {"child": "name: c\ninherits: parent\nkind: local\n", "parent": PARENT},
            "parent.yaml:6: ",
            "local profile has none",
            id="settings that do not go together",
        ),
        pytest.param(
            {"child": "inherits: parent\n", "parent": PARENT},
            "child.yaml:1: ",
            "name is missing",
            id="no name",
        ),
        pytest.param(
            {"child": "name: c\ninherits: parent\n", "parent": "[]\n"},
            "parent.yaml:1: ",
            "a profile is a mapping",
            id="a parent that is a list",
        ),
        pytest.param(
            {"child": "name: c\ninherits: parnet\n", "parent": PARENT},
            "child.yaml:2: ",
            "profile 'parnet' not found. Did you mean 'parent'? Known: ",
            id="an unknown parent",
        ),
        pytest.param(
            {"child": "name: c\ninherits: ../no.yaml\n"},
            "child.yaml:2: ",
            "there is no file",
            id="a missing file",
        ),
        pytest.param(
            {"child": "name: c\ninherits: [a, b]\n"},
            "child.yaml:2: ",
            "found ['a', 'b']",
            id="two parents",
        ),
        pytest.param(
            {"child": "name: c\ninherits: child\n"},
            "child.yaml:2: ",
            "inherit from itself",
            id="itself",
        ),
    ],
)
def test_a_mistake_in_a_family_is_told_where_it_stands(family, files, place, said):
    """The message names the file and line of the offending key, in the child or in the parent."""
    with pytest.raises(UserError) as error:
        family("child", **files)

    assert place in str(error.value)
    assert said in str(error.value)


def test_a_circle_of_profiles_is_told_with_its_chain(family):
    """Each profile of the circle is named, in the order in which they inherit."""
    files = {
        name: f"name: {name}\ninherits: {parent}\n"
        for name, parent in ("ab", "bc", "ca")
    }

    with pytest.raises(
        UserError,
        match=r"a\.yaml inherits \S*b\.yaml inherits \S*c\.yaml inherits \S*a\.yaml$",
    ):
        family("a", **files)


def test_a_parent_is_found_beside_the_file_that_inherits(tmp_path):
    """A path is taken from the file that says it, not from where zsg is called."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/base.yaml").write_text(PARENT)
    (tmp_path / "site/child.yaml").write_text("name: child\ninherits: base.yaml\n")

    assert (
        profiles.load_profile(
            str(tmp_path / "site/child.yaml"), tmp_path / "elsewhere"
        ).train.nodes
        == 2
    )


def test_a_shipped_profile_inherits_from_what_is_shipped(tmp_path):
    """A user's profile of the parent's name does not change what the shipped child means."""
    (tmp_path / "cluster_profiles").mkdir()
    (tmp_path / "cluster_profiles/a100-80g.yaml").write_text(
        "name: a100-80g\nkind: local\n"
    )

    assert profiles.load_profile("a800-80g", tmp_path).kind == "slurm"


def test_the_shipped_gpu_nodes_differ_as_their_gpus_do(tmp_path):
    """An A800 node is an A100 node but for what a slower NVLink costs."""
    a100, a800 = (
        profiles.load_profile(name, tmp_path).model_dump()
        for name in ("a100-80g", "a800-80g")
    )

    assert {key for key in a100 if a100[key] != a800[key]} == {
        "name",
        "inherits",
        "gpu",
    }
    assert {key for key in a100["gpu"] if a100["gpu"][key] != a800["gpu"][key]} == {
        "name",
        "mfu",
    }


def test_network_interfaces_can_be_left_out(load):
    """NCCL's `^` for "all but these" passes into a job's environment."""
    text = 'name: a\nkind: slurm\nenvironment: {set: {NCCL_SOCKET_IFNAME: "^=docker0,lo"}}\n'

    assert load(text).environment.set == {"NCCL_SOCKET_IFNAME": "^=docker0,lo"}


def test_plan_says_where_its_profile_comes_from(zsg, tasks):
    """`zsg plan` names the file of the profile and those it inherits from."""
    (zsg.folder / "cluster_profiles").mkdir()
    zsg.write(
        "cluster_profiles/mine.yaml",
        "name: mine\ninherits: slurm-minimal\nslurm: {partition: main}\n",
    )
    grid = zsg.write(
        "grid.yaml",
        f"name: g\ndefaults: {{data: {{path: {tasks}}}}}\ngrid: {{seed: [0, 1]}}\n",
    )
    zsg("plan", grid, "--profile", "mine")

    [line] = [line for line in zsg.said.splitlines() if line.startswith("profile ")]
    assert line.startswith(
        f"profile mine: {zsg.folder}/cluster_profiles/mine.yaml inherits "
    )
    assert line.endswith("/cluster_profiles/slurm-minimal.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_grid_plans_on_every_shipped_profile(name, zsg, tasks):
    """Each shipped profile plans a grid as it stands."""
    grid = zsg.write(
        "grid.yaml",
        f"name: g\ndefaults: {{data: {{path: {tasks}}}}}\ngrid: {{seed: [0, 1]}}\n",
    )

    assert "2 to submit" in zsg("plan", grid, "--profile", name)


def test_module_lines_are_said_to_go_into_setup(load):
    """A key that other launchers have is answered with ours, not with what is spelt alike."""
    said = r"unknown key 'modules'\. Module lines go into `setup`"
    with pytest.raises(UserError, match=said):
        load("name: a\nkind: slurm\nmodules: [cuda]\n")


HELP = """Parallel run options:
  -a, --array=indexes         job array index values
      --bb=<spec>             burst buffer specifications

Options provided by plugins:
      --container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH
                              [pyxis] the image, as --image was before
"""


def test_what_the_sbatch_at_hand_has_is_taken() -> None:
    """A newer Slurm and a site's plugins have options that no list of ours has."""
    options = sbatch_options.parse_help(HELP)

    assert options == {"array", "bb", "container-image"}
    assert (
        sbatch_options.explain_refusal("container-image", "x", lambda: options) is None
    )
    assert sbatch_options.explain_refusal("array", "0-3", lambda: options) is not None
    assert "no option --image" in str(
        sbatch_options.explain_refusal("image", "x", lambda: options)
    )


def test_a_help_text_of_blank_lines_is_read_in_one_pass() -> None:
    """Of a hundred thousand of them each was once looked at from all before it, for
    many minutes."""
    blank = "\n" * 100_000

    assert sbatch_options.parse_help(blank + HELP) == sbatch_options.parse_help(HELP)


def test_an_option_that_zsg_sets_is_never_passed_on() -> None:
    """Each option of sbatch is of one kind: passed on, set by a key, or zsg's own."""
    kinds = (sbatch_options.PASSED, sbatch_options.SET_BY.keys(), sbatch_options.OURS)

    assert len(frozenset().union(*kinds)) == sum(len(kind) for kind in kinds)

"""Is a profile found, read, and refused where it could do harm?"""

import pytest

from launcher import profiles
from launcher.profiles import Profile
from launcher.shipped import shipped
from zsg_core.errors import UserError

SHIPPED = sorted(path.stem for path in shipped("cluster_profiles").glob("*.yaml"))


@pytest.fixture
def load(tmp_path):
    """Reads a text as a profile file."""

    def read(text: str) -> Profile:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return profiles.load(str(path), tmp_path)

    return read


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_loads_under_its_own_name(name, tmp_path):
    """What zsg ships is valid, and the name in a file is the file's."""
    assert profiles.load(name, tmp_path).name == name


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

    beside, here = profiles.load("local", tmp_path / "grids"), profiles.load("local", tmp_path)
    monkeypatch.chdir(tmp_path)
    last = profiles.load("local", tmp_path)

    assert (11, 12) == (beside.max_parallel, here.max_parallel)
    assert last.max_parallel not in (11, 12)


def test_an_unknown_name_is_told_what_is_known(tmp_path):
    """The message lists the profiles there are."""
    with pytest.raises(UserError, match=r"profile 'a800x' not found; known: .*local.*path of a \.yaml file"):
        profiles.load("a800x", tmp_path)


@pytest.mark.parametrize("name", ["../local", "x/../local", "/etc/passwd", "", "a\0b", "x" * 300])
def test_a_name_is_no_path(name, tmp_path):
    """A name cannot reach outside the folders of profiles."""
    with pytest.raises(UserError, match="not found"):
        profiles.load(name, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("name: a\nkind: slurm\nslurm:\n  particion: x\n", 4, "Did you mean 'partition'", id="a key"),
        pytest.param("name: a\nkind: slurm\ntrian: {}\n", 3, "Did you mean 'train'", id="a key at the top"),
        pytest.param("name: a\nkind: slrum\n", 2, "'local' or 'slurm', found 'slrum'", id="a kind"),
        pytest.param("name: a\nkind: slurm\ntrain: {nodes: 0}\n", 3, "train.nodes", id="no nodes"),
        pytest.param(
            "name: a\nkind: slurm\ndeepspeed: {zero_stage: 4}\n", 3, "deepspeed.zero_stage", id="a ZeRO stage"
        ),
        pytest.param("kind: local\n", 1, "name is missing", id="no name"),
        pytest.param("[]\n", 1, "a profile is a mapping", id="a list"),
        pytest.param("", 1, "a profile is a mapping", id="an empty file"),
        pytest.param("name: a\nkind: local\nprepare: {nodes: 2}\n", 3, "one process", id="prepare on two nodes"),
        pytest.param(
            "name: a\nkind: local\nprepare: {ranks_per_node: 2}\n", 3, "one process", id="prepare of two ranks"
        ),
        pytest.param("name: a\nkind: local\nsetup: module load x\n", 3, "setup", id="setup that is no list"),
        pytest.param("name: a\nkind: local\nfunction-x: 1\n", 3, "unknown key 'function-x'", id="a key like our own"),
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
    "a pipe": "a|b",
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


@pytest.mark.parametrize("value", ["gpu:a800:8", "a100,80g", "main", "user@site", "rack=1", "x+y", "a/b", "v1.2"])
def test_what_slurm_options_are_made_of_is_taken(load, value):
    """The words of real clusters pass."""
    assert load(f'name: a\nkind: slurm\nslurm: {{gres: "{value}"}}\n').slurm.gres == value


def test_setup_lines_are_kept_verbatim(load):
    """`setup` is the one place for shell text, and is not touched."""
    lines = load('name: a\nkind: slurm\nsetup:\n  - source "$HOME/my env/bin/activate"\n').setup

    assert lines == ['source "$HOME/my env/bin/activate"']


def test_variables_of_a_job_follow_its_size(load):
    """Threads are the CPUs of a process, unless the profile sets them itself."""
    profile = load("name: a\nkind: slurm\ntrain: {cpus_per_rank: 6}\nenvironment: {set: {NCCL_DEBUG: WARN}}\n")

    assert profile.environment.of(profile.train) == {
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "6",
        "NCCL_DEBUG": "WARN",
    }

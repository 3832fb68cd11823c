from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import agentcube
from agentcube import CodeInterpreterClient, _version

SOURCE = Path(agentcube.__file__).parent


def test_the_version() -> None:
    assert agentcube.__version__ == _version.__version__
    assert importlib.metadata.version("agentcube-sdk") == agentcube.__version__


def test_all_is_all() -> None:
    public = {name for name in vars(agentcube) if not name.startswith("_")}
    public -= {"exceptions"}
    assert public | {"__version__"} == set(agentcube.__all__)
    assert set(agentcube.exceptions.__all__) < set(agentcube.__all__)


def test_the_package_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()


def test_slow_packages_are_imported_when_needed() -> None:
    program = "import agentcube, sys; print({'jwt', 'cryptography', 'asyncio'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_only_one_module_reads_the_environment() -> None:
    readers = {
        file.name
        for file in SOURCE.glob("*.py")
        if "os.environ" in file.read_text() or "getenv" in file.read_text()
    }
    assert readers == {"_settings.py"}


def test_only_one_module_knows_the_http_library() -> None:
    knowing = {file.name for file in SOURCE.glob("*.py") if "http.client" in file.read_text()}
    assert knowing == {"_http.py"}


def test_everything_public_says_what_it_does() -> None:
    for name in agentcube.__all__:
        thing = getattr(agentcube, name)
        if not inspect.isclass(thing):
            continue
        assert thing.__doc__, name
        for member, value in vars(thing).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"


def test_no_type_of_another_package_is_in_a_signature() -> None:
    allowed = ("builtins", "collections.abc", "typing", "os", "agentcube", "types")
    for name, method in inspect.getmembers(CodeInterpreterClient, inspect.isfunction):
        if name.startswith("_"):
            continue
        for hint in typing.get_type_hints(method).values():
            for part in (hint, *typing.get_args(hint)):
                module = getattr(part, "__module__", "builtins")
                assert module.split(".")[0] in {a.split(".")[0] for a in allowed}, (name, part)


def test_the_first_parameters_can_be_given_by_position() -> None:
    parameters = inspect.signature(CodeInterpreterClient).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [
        "name",
        "namespace",
        "ttl",
        "workload_manager_url",
        "router_url",
        "auth_token",
        "verbose",
    ]

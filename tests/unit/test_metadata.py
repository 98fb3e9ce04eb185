"""``provider.yaml`` is the one home; Airflow ignores a misspelt key without a word, so here each one is checked."""

from __future__ import annotations

import ast
import importlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_origin

import pytest

pytest.importorskip("airflow", reason="provider.yaml is checked against Airflow's own schema")

import airflow
import yaml
from packaging.version import Version

import airflow_oauth_guard
from airflow_oauth_guard.errors import ConfigurationError
from airflow_oauth_guard.grants import settings
from airflow_oauth_guard.grants.flow import Grant
from airflow_oauth_guard.hooks.base import DIRECTLY_GIVEN, OAuthGuardHook
from airflow_oauth_guard.hooks.config import configured_brake, duration, option
from airflow_oauth_guard.metadata import config_default, connection_types, get_provider_info

pytestmark = pytest.mark.airflow

PACKAGE = Path(airflow_oauth_guard.__file__).parent
REPOSITORY = PACKAGE.parent
AIRFLOW = Path(airflow.__file__).parent
SCHEMA = json.loads((AIRFLOW / "provider_info.schema.json").read_text())
DOCUMENT = yaml.safe_load((PACKAGE / "provider.yaml").read_text())
BEFORE_3_2 = Version(airflow.__version__) < Version("3.2")
PREFIX = "oauth_guard_"

#: What the schema of Airflow 3.1 does not know yet, and leaves alone.
SINCE_3_2 = {"cli", "hook-name", "ui-field-behaviour", "conn-fields"}
NOT_YET_KNOWN = SINCE_3_2 if BEFORE_3_2 else set()
#: Airflow reads these in its providers manager; its schema does not list them.
READ_BY_THE_MANAGER = {"ui-field-behaviour", "conn-fields"}


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def grant_of(conn_type: str) -> type[Grant]:
    return imported(connection_types()[conn_type]["hook-class-name"]).grant_class


# -- keys -------------------------------------------------------------------------------------------------------------


def test_every_key_is_one_that_airflow_knows():
    ours = {key for key in DOCUMENT if not key.startswith("x-")}
    assert ours <= SCHEMA["properties"].keys() | NOT_YET_KNOWN
    assert set(get_provider_info()) == ours, "our own keys stay at home"


@pytest.mark.parametrize("section", ["integrations", "operators", "sensors", "triggers", "hooks", "connection-types"])
def test_every_key_of_an_entry_is_one_that_airflow_knows(section):
    known = SCHEMA["properties"][section]["items"]["properties"].keys()
    known |= READ_BY_THE_MANAGER if section == "connection-types" else set()
    for entry in DOCUMENT[section]:
        assert entry.keys() <= known | NOT_YET_KNOWN, entry


@pytest.mark.skipif(BEFORE_3_2, reason="Airflow before 3.2 asks the hook class for its form")
def test_what_the_schema_does_not_list_is_read_by_the_providers_manager():
    source = (AIRFLOW / "providers_manager.py").read_text()
    behaviour = {key for entry in DOCUMENT["connection-types"] for key in entry["ui-field-behaviour"]}
    for key in READ_BY_THE_MANAGER | behaviour:
        assert f'"{key}"' in source, key


def test_what_we_tell_airflow_is_valid_by_its_own_schema():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(get_provider_info(), SCHEMA)


def test_the_version_is_not_repeated_here():
    assert "versions" not in DOCUMENT
    assert DOCUMENT["package-name"] == "airflow-oauth-guard"


# -- names ------------------------------------------------------------------------------------------------------------


def python_modules(section: str) -> set[str]:
    return {module for entry in DOCUMENT[section] for module in entry["python-modules"]}


@pytest.mark.parametrize("section", ["operators", "sensors", "triggers", "hooks"])
def test_every_module_imports(section):
    for module in python_modules(section):
        importlib.import_module(module)


@pytest.mark.parametrize("section", ["operators", "sensors", "triggers"])
def test_every_module_there_is_is_told(section):
    there = {f"airflow_oauth_guard.{section}.{path.stem}" for path in (PACKAGE / section).glob("[a-z]*.py")}
    assert python_modules(section) == there


def test_every_class_and_function_imports():
    for path in DOCUMENT["notifications"] + DOCUMENT["secrets-backends"] + DOCUMENT["cli"]:
        assert callable(imported(path))
    for entry in DOCUMENT["connection-types"]:
        assert issubclass(imported(entry["hook-class-name"]), OAuthGuardHook)


def test_the_entry_point_leads_here():
    project = (REPOSITORY / "pyproject.toml").read_text()
    [path] = re.findall(r'^provider_info = "([^"]+)"', project, re.MULTILINE)
    assert imported(path.replace(":", "."))() == get_provider_info()


# -- one name in all homes --------------------------------------------------------------------------------------------


def classes_in(folder: str, base: type) -> dict[str, type]:
    """By module, the classes of this kind that are defined in a folder of the package."""
    found = {}
    for path in sorted((PACKAGE / folder).glob("[a-z]*.py")):
        module = importlib.import_module(f"airflow_oauth_guard.{folder}.{path.stem}")
        for value in vars(module).values():
            # Python 3.10 takes an alias such as Mapping[str, Finding] for a type.
            if isinstance(value, type) and not get_origin(value) and issubclass(value, base) and value is not base:
                found |= {path.stem: value} if value.__module__ == module.__name__ else {}
    return found


HOOKS, GRANTS = classes_in("hooks", OAuthGuardHook), classes_in("grants", Grant)


def test_a_connection_class_has_one_name_in_all_its_homes():
    names = set(HOOKS)
    assert len(names) >= 5
    assert set(GRANTS) == names
    assert {conn_type.removeprefix(PREFIX) for conn_type in connection_types()} == names
    assert {module.rpartition(".")[2] for module in python_modules("hooks")} == names
    assert {path.stem for path in (REPOSITORY / "docs/connections").glob("*.md")} - {"index", "README"} == names
    assert {path.stem.removeprefix("test_") for path in (REPOSITORY / "tests/unit/grants").glob("test_*.py")} >= names


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_hook_grant_and_entry_agree(name):
    hook, entry = HOOKS[name], connection_types()[PREFIX + name]
    assert hook.conn_type == PREFIX + name == entry["connection-type"]
    assert hook.hook_name == entry["hook-name"]
    assert hook.grant_class is GRANTS[name]
    assert hook.grant_class.connection_class == name
    assert imported(entry["hook-class-name"]) is hook


# -- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_the_form_shows_exactly_the_fields_the_grant_knows(conn_type):
    entry = connection_types()[conn_type]
    hidden = set(entry["ui-field-behaviour"]["hidden-fields"])
    airflows_own = {meaning for given, meaning in DIRECTLY_GIVEN.items() if given not in hidden}
    assert entry["conn-fields"].keys() | airflows_own == grant_of(conn_type).fields
    assert not entry["conn-fields"].keys() & airflows_own, "shown twice"
    assert {"port", "schema"} <= hidden


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_airflows_own_fields_are_named_for_what_they_mean(conn_type):
    behaviour = connection_types()[conn_type]["ui-field-behaviour"]
    shown = DIRECTLY_GIVEN.keys() - set(behaviour["hidden-fields"])
    assert behaviour["relabeling"].keys() == shown
    assert set(grant_of(conn_type).required) <= grant_of(conn_type).fields


CHOICES = {
    "client_auth": settings.CLIENT_AUTHS,
    "body_format": settings.BODY_FORMATS,
    "probe_method": settings.METHODS,
    "rotation": ("true", "false"),
    "expire_policy": settings.EXPIRE_POLICIES,
    "algorithm": settings.ALGORITHMS,
    "product": settings.INSTAGRAM_PRODUCTS,
}


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_choices_and_defaults_are_those_the_settings_have(conn_type):
    plain = settings.GrantSettings("crm", "https://id.example/token")
    for name, given in connection_types()[conn_type]["conn-fields"].items():
        schema = given["schema"]
        assert tuple(schema.get("enum", ())) == CHOICES.get(name, ()), name
        if "default" in schema:
            value = getattr(plain, name)
            assert schema["default"] == (value.total_seconds() if isinstance(value, timedelta) else value), name
        assert schema["type"][-1] == "null", f"{name} may be left empty"
        assert given["label"]
        assert given["description"]


#: What a provider's preset may say as well: a default of the form's would be the connection's own word against it.
SAID_BY_PRESETS = {
    *("client_auth", "body_format", "algorithm", "audience", "scopes", "rotation", "rotation_grace", "probe_url"),
    *("probe_method", "product", "authorization_url"),
}


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_what_a_preset_may_say_has_no_default_in_the_form_and_says_what_empty_means(conn_type):
    for name, given in connection_types()[conn_type]["conn-fields"].items():
        if name in SAID_BY_PRESETS:
            assert "default" not in given["schema"], name
        if name in SAID_BY_PRESETS and "enum" in given["schema"]:
            assert "Empty" in given["description"], name


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_a_field_that_was_left_empty_or_filled_from_a_list_is_read_as_the_form_sends_it(conn_type):
    """A form sends null or "" for what is empty, and text for whatever is chosen from a list."""
    grant, entry = grant_of(conn_type), connection_types()[conn_type]
    addresses = {"token_url": "https://id.example/token", "probe_url": "https://api.example/me"}
    needed = {name: addresses.get(name, "given") for name in (*grant.required, *({"client_secret"} & grant.fields))}
    for empty in (None, ""):
        fields = {**dict.fromkeys(entry["conn-fields"], empty), **needed}
        read = settings.read_settings("crm", fields, known=grant.fields, required=())
        assert (read.expire_policy, read.rotation, read.allow_http) == ("ask", True, False)
    for name, given in entry["conn-fields"].items():
        for choice in given["schema"].get("enum", ()):
            read = settings.read_settings("crm", {name: choice}, known=grant.fields, required=())
            assert str(getattr(read, name)).lower() == choice.lower()


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_secrets_are_hidden_in_the_form(conn_type):
    secret = {"refresh_token", "access_token", "private_key", "user_password", "subject_token", "assertion"}
    for name, given in connection_types()[conn_type]["conn-fields"].items():
        assert (given["schema"].get("format") == "password") == (name in secret), name


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_each_hook_class_has_the_form_methods_itself(name):
    """Airflow before 3.2 looks for them in the class's own ``__dict__``."""
    hook, entry = HOOKS[name], connection_types()[PREFIX + name]
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= hook.__dict__.keys()
    behaviour = hook.get_ui_field_behaviour()
    assert behaviour.keys() == {"hidden_fields", "relabeling", "placeholders"}
    assert behaviour["hidden_fields"] == entry["ui-field-behaviour"]["hidden-fields"]


@pytest.fixture(scope="module")
def forms() -> dict[str, Any]:
    """The forms as Airflow's own UI service describes them, from the hook classes or from ``provider.yaml``."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    return {form.connection_type: form for form in HookMetaService.hook_meta_data()}


@pytest.mark.parametrize("conn_type", sorted(connection_types()))
def test_airflow_shows_the_form_that_is_described_here(conn_type, forms):
    entry, form = connection_types()[conn_type], forms[conn_type]
    assert form.hook_name == entry["hook-name"]
    assert form.hook_class_name == entry["hook-class-name"]
    assert form.extra_fields.keys() == entry["conn-fields"].keys()
    for name, given in entry["conn-fields"].items():
        shown = form.extra_fields[name]
        assert shown["schema"]["title"] == given["label"]
        assert shown["description"] == given["description"]
        assert shown["value"] == given["schema"].get("default")
        for key in ("type", "enum", "format"):
            assert shown["schema"].get(key) == given["schema"].get(key), f"{key} of {name}"
    standard, behaviour = form.standard_fields, entry["ui-field-behaviour"]
    assert standard.port.hidden
    assert standard.url_schema.hidden
    for given, own in (("host", standard.host), ("login", standard.login), ("password", standard.password)):
        is_hidden = own is not None and own.hidden
        assert is_hidden == (given in behaviour["hidden-fields"])
        if not is_hidden:
            assert own.title == behaviour["relabeling"][given]


# -- configuration ----------------------------------------------------------------------------------------------------


def options_used() -> set[str]:
    """Every ``[oauth_guard]`` option that the package or a shipped DAG reads."""
    used = set()
    for path in [*PACKAGE.rglob("*.py"), *(REPOSITORY / "dags").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                used |= _option_of(node)
    return used


def _option_of(call: ast.Call) -> set[str]:
    words = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name in ("option", "duration", "_number") and len(words) == 1:
        return set(words)
    return set(words[1:2]) if name.startswith("get") and words[:1] == ["oauth_guard"] else set()


def test_every_option_that_is_read_is_described_and_every_described_one_is_read():
    described = DOCUMENT["config"]["oauth_guard"]["options"]
    assert options_used() == described.keys()
    for name, given in described.items():
        assert given.keys() - {"sensitive"} == {"description", "version_added", "type", "example", "default"}, name


@pytest.mark.parametrize("name", sorted(DOCUMENT["config"]["oauth_guard"]["options"]))
def test_a_default_is_usable_and_can_be_overridden(name, monkeypatch):
    given = DOCUMENT["config"]["oauth_guard"]["options"][name]
    monkeypatch.delenv(f"AIRFLOW__OAUTH_GUARD__{name.upper()}", raising=False)
    assert option(name) == config_default(name) == (given["default"] or "")
    reads = {"brake_count": lambda: configured_brake().count, "brake_percent": lambda: configured_brake().percent}
    read = reads.get(name, lambda: duration(name).total_seconds())
    if given["type"] in ("float", "integer"):
        assert read() == {"float": float, "integer": int}[given["type"]](given["default"])
    monkeypatch.setenv(f"AIRFLOW__OAUTH_GUARD__{name.upper()}", " 17 ")
    assert option(name) == "17"
    if given["type"] in ("float", "integer"):
        assert read() == 17


def test_the_shipped_dags_fall_back_to_the_same_defaults():
    for name in ("refresh_schedule", "flat_line_schedule"):
        sources = "".join(path.read_text() for path in (REPOSITORY / "dags").glob("*.py"))
        assert f'"oauth_guard", "{name}", fallback="{config_default(name)}"' in sources


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_duration_that_is_none_is_an_error_that_names_the_option(value, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OAUTH_GUARD__APPROVAL_SECONDS", value)
    with pytest.raises(ConfigurationError, match="approval_seconds"):
        duration("approval_seconds")

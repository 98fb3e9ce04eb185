"""Importing is quick and does nothing: each ring is imported in a fresh interpreter, which says what came along."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import airflow_oauth_guard
from airflow_oauth_guard import domain, grants

REPOSITORY = Path(__file__).resolve().parents[2]


def comes_along(*modules: str) -> set[str]:
    """The top-level packages that importing these loads."""
    code = (
        f"import importlib, json, sys; before = set(sys.modules); "
        f"[importlib.import_module(name) for name in {modules!r}]; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return set(json.loads(ended.stdout))


def all_of(package) -> list[str]:
    return [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]


def test_importing_the_package_brings_nothing_along():
    heavy = {"airflow", "sqlalchemy", "alembic", "httpx", "requests", "authlib", "joserfc", "pendulum", "yaml"}
    assert not comes_along("airflow_oauth_guard") & heavy


def test_airflows_question_what_we_are_needs_no_airflow():
    """Its provider discovery imports this in every process, for every command."""
    heavy = {"airflow", "sqlalchemy", "alembic", "httpx", "requests", "authlib", "pendulum"}
    assert not comes_along("airflow_oauth_guard.metadata") & heavy


def test_domain_needs_the_standard_library_and_pendulum_only():
    modules = all_of(domain)
    assert len(modules) > 5
    third_party = comes_along("airflow_oauth_guard.errors", *modules) - set(sys.stdlib_module_names)
    assert not third_party & {
        "airflow",
        "sqlalchemy",
        "httpx",
        "requests",
        "authlib",
        "joserfc",
        "cryptography",
        "yaml",
    }
    assert "pendulum" in third_party


def test_grants_need_no_airflow_no_socket_and_no_sql():
    modules = all_of(grants)
    assert len(modules) > 5
    assert not comes_along(*modules) & {"airflow", "sqlalchemy", "httpx", "requests", "authlib", "joserfc"}


def test_the_store_needs_no_airflow():
    loaded = comes_along("airflow_oauth_guard.store.store")
    assert "airflow" not in loaded
    assert not loaded & {"httpx", "requests", "authlib"}


IN_DAG_FILES = (
    "airflow_oauth_guard.consumers.taskflow",
    "airflow_oauth_guard.consumers.listener",
    "airflow_oauth_guard.domain.sources",
    "airflow_oauth_guard.operators.heartbeat",
    "airflow_oauth_guard.operators.require_usable",
)


BRINGS_ALEMBIC_ITSELF = pytest.mark.skipif(
    version("apache-airflow-task-sdk") < "1.2", reason="what Airflow 3.1 imports brings Alembic along"
)


@BRINGS_ALEMBIC_ITSELF
def test_what_dag_files_import_brings_no_store_no_session_and_no_socket_of_ours():
    """Airflow parses a DAG file again and again, and each task once more."""
    heavy = {"alembic", "mako", "requests", "authlib", "joserfc"}
    assert not comes_along("airflow.sdk", *IN_DAG_FILES) & heavy


@BRINGS_ALEMBIC_ITSELF
def test_a_token_is_had_without_what_only_a_migration_needs():
    assert not comes_along("airflow_oauth_guard.hooks.using", "airflow_oauth_guard.store.store") & {"alembic", "mako"}


def test_the_package_says_what_it_is_for():
    assert airflow_oauth_guard.__doc__

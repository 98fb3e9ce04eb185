from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_oauth_guard.catalog.catalog import Catalog
from airflow_oauth_guard.errors import CatalogError, ConfigurationError

PAGE = "https://docs.acme.example/oauth"
ACME: dict[str, Any] = {
    "title": "Acme",
    "docs": PAGE,
    "params": {"shop": {"meaning": "The shop's name", "example": "north"}},
    "grants": {"refresh_token": {"token_url": "https://{shop}.acme.example/oauth/token/", "source": PAGE}},
}


def write(folder: Path, name: str, document: Any = None) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(ACME if document is None else document), encoding="utf-8")
    return path


def complaint(catalog: Catalog, name: str) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        catalog.get(name)
    return caught.value


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_provider_is_found_by_its_name():
    assert Catalog().get("microsoft").name == "microsoft"
    assert "microsoft" in Catalog().names
    assert Catalog().names == sorted(set(Catalog().names))


@pytest.mark.parametrize(("typed", "meant"), [("hubspto", "hubspot"), ("Xero", "xero"), ("quickbook", "quickbooks")])
def test_an_unknown_provider_is_named_with_those_that_are_spelled_alike(typed, meant):
    error = complaint(Catalog(), typed)
    assert error.provider == typed
    assert f"did you mean {meant}" in str(error) or f", {meant}" in str(error)
    assert isinstance(error, ConfigurationError)


def test_a_provider_like_no_other_is_told_where_to_look():
    assert "`airflow oauth-guard providers` lists them" in str(complaint(Catalog(), "zzzzqqqq"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../preset",
        "microsoft.yaml",
        "a/b",
        "/etc/passwd",
        "..",
        "micro soft",
        "x" * 300,
        "\0",
        "microsoft\n",
        "\ud800",
    ],
    ids=ascii,
)
def test_a_name_that_is_no_name_is_unknown_and_reads_no_other_file(name):
    assert "is not in the catalog" in str(complaint(Catalog(), name))


@given(st.text(max_size=120))
def test_no_name_raises_anything_else(name):
    if name not in Catalog().names:
        assert complaint(Catalog(), name).provider == name


# -- the user's own folder ------------------------------------------------------------------------------------------


def test_a_folder_of_ones_own_adds_providers(tmp_path):
    write(tmp_path, "acme")
    catalog = Catalog(tmp_path)
    assert catalog.get("acme").title == "Acme"
    assert set(catalog.names) == {*Catalog().names, "acme"}
    assert "is not in the catalog" in str(complaint(Catalog(), "acme"))


def test_a_file_of_ones_own_replaces_the_shipped_one_as_a_whole(tmp_path):
    write(tmp_path, "hubspot")
    assert Catalog(tmp_path).get("hubspot").title == "Acme"
    assert list(Catalog(tmp_path).get("hubspot").params) == ["shop"]
    assert Catalog().get("hubspot").title != "Acme"
    assert Catalog(tmp_path).names == Catalog().names


def test_a_file_that_changes_is_read_again(tmp_path):
    path = write(tmp_path, "acme")
    catalog = Catalog(tmp_path)
    assert catalog.get("acme").title == "Acme"
    write(tmp_path, "acme", ACME | {"title": "Acme 2"})
    os.utime(path, ns=(1, 1))
    assert catalog.get("acme").title == "Acme 2"
    path.unlink()
    assert "is not in the catalog" in str(complaint(catalog, "acme"))


def test_other_files_in_the_folder_are_nobodys_business(tmp_path):
    (tmp_path / "README.md").write_text("# hello")
    (tmp_path / "sub").mkdir()
    assert Catalog(tmp_path).names == Catalog().names


@pytest.mark.parametrize("made", ["nothing", "file"])
def test_a_folder_that_is_none_is_an_error_about_its_option(tmp_path, made):
    path = tmp_path / "catalog"
    if made == "file":
        path.write_text("")
    with pytest.raises(CatalogError, match=r"is no folder; correct `\[oauth_guard\] catalog_folder`"):
        Catalog(path)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"title: [", "is no YAML"),
        (b"title: !!python/object/apply:os.system ['true']", "is no YAML"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"title: \x00", "is no YAML"),
        (b"- a list", "`the file` is a list"),
        (b"just text", "`the file` is a str"),
        (b"", "`grants` is missing"),
        (b"{}", "`grants` is missing"),
    ],
    ids=["broken", "code", "no text", "nul", "list", "text", "empty", "nothing"],
)
def test_a_file_that_is_none_is_an_error_that_names_it(tmp_path, raw, says):
    (tmp_path / "acme.yaml").write_bytes(raw)
    error = complaint(Catalog(tmp_path), "acme")
    assert error.provider == "acme"
    assert says in str(error)


# -- by what somebody typed in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [
        "https://north.acme.example/oauth/token/",
        "https://north.acme.example/oauth/token",
        "https://north.acme.example/oauth/token?version=2",
        "https://north.acme.example/oauth/token/?a=b&c=d",
    ],
)
def test_a_providers_address_is_found_with_its_params_whatever_its_query_and_its_last_slash(tmp_path, typed):
    write(tmp_path, "acme")
    found = Catalog(tmp_path).by_token_url(typed)
    assert found is not None
    assert found[0].name == "acme"
    assert dict(found[1]) == {"shop": "north"}


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "https://acme.example/oauth/token",
        "https://a/b.acme.example/oauth/token",
        "https://north.acme.example/oauth/token/more",
        "https://north.acme.example.evil.example/oauth/token",
        "https://northXacme.example/oauth/token",
        "http://north.acme.example/oauth/token",
        "north.acme.example/oauth/token",
    ],
)
def test_an_address_that_only_looks_like_it_is_not_taken_for_it(tmp_path, typed):
    write(tmp_path, "acme")
    assert Catalog(tmp_path).by_token_url(typed) is None


WHOLE_HOST = {
    "title": "Anybody",
    "docs": PAGE,
    "params": {"domain": {"meaning": "The tenant's host", "example": "north.anybody.example"}},
    "grants": {"refresh_token": {"token_url": "https://{domain}/oauth/token", "source": PAGE}},
}


def test_of_several_that_fit_the_one_that_says_most_of_the_address_is_taken(tmp_path):
    """Many end in /oauth/token, and one whose host is a param is not all of them."""
    write(tmp_path, "aaa_anybody", WHOLE_HOST)
    plain = {"refresh_token": {"token_url": "https://id.anybody.example/oauth/token", "source": PAGE}}
    write(tmp_path, "zzz_plain", ACME | {"params": {}, "grants": plain})
    catalog = Catalog(tmp_path)
    for host, name in {"id": "zzz_plain", "east": "aaa_anybody"}.items():
        found = catalog.by_token_url(f"https://{host}.anybody.example/oauth/token")
        assert found is not None
        assert found[0].name == name


def test_a_host_that_is_a_param_is_not_everybodys_host(tmp_path):
    write(tmp_path, "aaa_anybody", WHOLE_HOST)
    catalog = Catalog(tmp_path)
    assert catalog.by_token_url("https://id.corp.internal/oauth/token") is None
    assert catalog.by_token_url("https://anybody.example.evil.test/oauth/token") is None
    choices = {"domain": {"meaning": "x", "example": "a.example", "choices": ["a.example", "b.example"]}}
    write(tmp_path, "aaa_anybody", WHOLE_HOST | {"params": choices})
    os.utime(tmp_path / "aaa_anybody.yaml", ns=(1, 1))
    assert catalog.by_token_url("https://b.example/oauth/token") is not None
    assert catalog.by_token_url("https://c.example/oauth/token") is None


def test_a_param_that_stands_twice_in_an_address_is_the_same_both_times(tmp_path):
    twice = "https://{shop}.acme.example/{shop}/token"
    write(tmp_path, "acme", ACME | {"grants": {"refresh_token": {"token_url": twice, "source": PAGE}}})
    found = Catalog(tmp_path).by_token_url("https://north.acme.example/north/token")
    assert found is not None
    assert dict(found[1]) == {"shop": "north"}
    assert Catalog(tmp_path).by_token_url("https://north.acme.example/south/token") is None


def test_a_broken_file_does_not_stop_what_is_about_another_provider(tmp_path, caplog):
    write(tmp_path, "aaa_broken", ACME | {"docs": "nowhere"})
    write(tmp_path, "acme")
    found = Catalog(tmp_path).by_token_url("https://north.acme.example/oauth/token")
    assert found is not None
    assert found[0].name == "acme"
    assert "`aaa_broken`" in caplog.text
    assert "`docs`" in str(complaint(Catalog(tmp_path), "aaa_broken"))


def test_a_provider_that_is_meant_is_found_by_what_its_name_begins_with():
    catalog = Catalog()
    assert getattr(catalog.like("HubSpot"), "name", None) == "hubspot"
    assert getattr(catalog.like("zoho crm"), "name", None) == "zoho"
    assert catalog.like("") is None
    assert catalog.like("zzzzqqqq") is None


def test_an_alias_of_ones_own_file_is_known(tmp_path):
    write(tmp_path, "acme", ACME | {"aliases": ["acme_shops", "roadrunner"]})
    assert getattr(Catalog(tmp_path).like("Roadrunner"), "name", None) == "acme"

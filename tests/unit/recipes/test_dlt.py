"""A dlt pipeline, with dlt itself."""

from __future__ import annotations

import pytest

pytest.importorskip("airflow", reason="guarded connections need Airflow")
pytest.importorskip("dlt")

import dlt
from dlt.pipeline.exceptions import PipelineStepFailed

from airflow_oauth_guard.errors import CredentialUnusableError
from examples.recipes import dlt_pipeline, dlt_rest_api
from tests.resource_server import INVALID_TOKEN, Told
from tests.unit.recipes.conftest import bearer, parameter

pytestmark = pytest.mark.airflow


@pytest.fixture
def url(provider):
    def body(page, rows):
        following = f"{provider.url}/contacts?page={page + 1}" if page < provider.pages else None
        return {"rows": rows, "next": following}

    return provider.speak(
        token=bearer, page=lambda asked: int(parameter(asked, "page", "1")), body=body, refusal=Told(401, INVALID_TOKEN)
    )


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    made = dlt.pipeline(
        "recipe",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=(tmp_path / "loaded").as_uri()),
        dataset_name="crm",
    )
    yield made
    made.deactivate()


def loaded(tmp_path):
    return list((tmp_path / "loaded").rglob("contacts/*"))


def test_a_pipeline_loads_all_pages_and_says_how_many_rows(guarded, url, pipeline, tmp_path):
    assert dlt_pipeline.load(pipeline, guarded.conn_id, url) == 6
    assert loaded(tmp_path)


def test_a_pipeline_that_moves_nothing_says_zero(guarded, provider, pipeline):
    url = provider.speak(token=bearer, page=lambda asked: 1, body=lambda page, rows: {"rows": []}, refusal=Told(401))
    assert dlt_pipeline.load(pipeline, guarded.conn_id, url) == 0


def test_a_pipeline_goes_on_with_the_next_token_when_one_is_revoked(
    guarded, url, provider, pipeline, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=False)
    assert dlt_pipeline.load(pipeline, guarded.conn_id, url) == 6
    assert len(set(provider.bearers)) == 2


def test_a_pipeline_is_loud_and_loads_no_part_when_the_grant_goes_with_it(
    guarded, url, pipeline, tmp_path, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(PipelineStepFailed, match="invalid_grant") as raised:
        dlt_pipeline.load(pipeline, guarded.conn_id, url)
    assert isinstance(raised.value.__cause__.__cause__, CredentialUnusableError)
    assert not loaded(tmp_path)


def test_the_rest_api_source_goes_on_with_the_next_token_when_one_is_revoked(
    guarded, url, provider, pipeline, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=False)
    pipeline.run(dlt_rest_api.crm(guarded.conn_id, url))
    assert pipeline.last_trace.last_normalize_info.row_counts["contacts"] == 6
    assert len(set(provider.bearers)) == 2


def test_the_rest_api_source_is_loud_when_the_grant_goes_with_it(
    guarded, url, pipeline, tmp_path, revoked_after_the_first_page
):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(PipelineStepFailed, match="invalid_grant"):
        pipeline.run(dlt_rest_api.crm(guarded.conn_id, url))
    assert not loaded(tmp_path)

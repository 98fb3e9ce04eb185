"""``simple_salesforce``, whose requests go to an org of our own."""

from __future__ import annotations

import pytest
from requests.adapters import HTTPAdapter

pytest.importorskip("airflow", reason="guarded connections need Airflow")
pytest.importorskip("simple_salesforce")

from airflow_oauth_guard.errors import CredentialUnusableError
from examples.recipes.salesforce import salesforce
from tests.resource_server import Told
from tests.unit.recipes.conftest import bearer

pytestmark = pytest.mark.airflow

INVALID_SESSION = b'[{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]'


class Plain(HTTPAdapter):
    """The library speaks https whatever its address says; our org does not."""

    def send(self, request, **kwargs):
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **kwargs)


@pytest.fixture
def contacts(guarded, provider):
    """Loads them all, with the library's own paging."""

    def body(page, rows):
        done = page == provider.pages
        more = {} if done else {"nextRecordsUrl": f"/services/data/v59.0/query/01g-{page + 1}"}
        return {"totalSize": 6, "done": done, "records": rows, **more}

    url = provider.speak(
        token=bearer,
        page=lambda asked: int(asked.path.rpartition("-")[2]) if "01g-" in asked.path else 1,
        body=body,
        refusal=Told(401, {"Content-Type": "application/json"}, INVALID_SESSION),
    )

    def load():
        org = salesforce(guarded.conn_id, url.replace("http://", "https://"))
        org.session.mount("https://", Plain())
        return [one["id"] for one in org.query_all("SELECT Id FROM Contact")["records"]]

    return load


def test_salesforce_loads_all_pages(contacts):
    assert contacts() == [1, 2, 3, 4, 5, 6]


def test_salesforce_goes_on_with_the_next_token_when_one_is_revoked(contacts, provider, revoked_after_the_first_page):
    revoked_after_the_first_page(grant=False)
    assert contacts() == [1, 2, 3, 4, 5, 6]
    assert len(set(provider.bearers)) == 2


def test_salesforce_is_loud_when_the_grant_goes_with_it(contacts, provider, revoked_after_the_first_page):
    revoked_after_the_first_page(grant=True)
    with pytest.raises(CredentialUnusableError, match="invalid_grant"):
        contacts()
    assert provider.sent == [1]


def test_an_org_that_refuses_every_token_is_named(contacts, provider, guarded):
    provider.accepts = lambda token: False
    with pytest.raises(CredentialUnusableError, match="look whether this host takes tokens of this credential"):
        contacts()
    assert len(guarded.token_requests()) == 2

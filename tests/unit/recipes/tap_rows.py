"""A small Singer tap, made with singer-sdk; run as a program."""

from __future__ import annotations

from singer_sdk import Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import BearerTokenAuthenticator
from singer_sdk.pagination import BaseHATEOASPaginator
from singer_sdk.streams import RESTStream


class Following(BaseHATEOASPaginator):
    def get_next_url(self, response):
        return response.json()["next"]


class Contacts(RESTStream):
    name = path = "contacts"
    primary_keys = ("id",)
    replication_key = "id"
    is_sorted = True
    records_jsonpath = "$.rows[*]"
    schema = th.PropertiesList(th.Property("id", th.IntegerType)).to_dict()
    STATE_MSG_FREQUENCY = 1

    @property
    def url_base(self):
        return f"{self.config['api_url']}/"

    @property
    def authenticator(self):
        return BearerTokenAuthenticator(token=self.config["access_token"])

    def get_new_paginator(self):
        return Following()

    def get_url_params(self, context, next_page_token):
        after = self.get_starting_replication_key_value(context) or 0
        return {"page": next_page_token.query.removeprefix("page=") if next_page_token else after // 2 + 1}


class TapRows(Tap):
    name = "tap-rows"
    config_jsonschema = th.PropertiesList(
        th.Property("api_url", th.StringType, required=True),
        th.Property("access_token", th.StringType, required=True, secret=True),
    ).to_dict()

    def discover_streams(self):
        return [Contacts(self)]


if __name__ == "__main__":
    TapRows.cli()

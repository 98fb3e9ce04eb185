"""The connection form of Airflow 3.1, made from ``provider.yaml``.

From Airflow 3.2 on the form is read from there directly; this module goes when 3.1 does.
"""

from __future__ import annotations

from typing import Any

from airflow_oauth_guard.metadata import connection_types


def ui_field_behaviour(conn_type: str) -> dict[str, Any]:
    """Which of Airflow's own fields to show, and under which names."""
    behaviour = connection_types()[conn_type]["ui-field-behaviour"]
    return {
        "hidden_fields": behaviour["hidden-fields"],
        "relabeling": behaviour["relabeling"],
        "placeholders": behaviour["placeholders"],
    }


def form_widgets(conn_type: str) -> dict[str, Any]:
    """Our own fields, as the WTForms that Airflow 3.1 translates for its UI."""
    return {name: _widget(field) for name, field in connection_types()[conn_type]["conn-fields"].items()}


def _widget(field: dict[str, Any]) -> Any:
    # Airflow 3.1 stands in for these modules where they are not installed.
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    schema = field["schema"]
    kind = schema["type"][0]
    if schema.get("format") == "password":
        widget = PasswordField
    else:
        widget = {"string": StringField, "integer": IntegerField, "boolean": BooleanField}[kind]
    validators = [Optional(), *([any_of(schema["enum"])] if "enum" in schema else [])]
    return widget(
        field["label"], validators=validators, description=field["description"], default=schema.get("default")
    )

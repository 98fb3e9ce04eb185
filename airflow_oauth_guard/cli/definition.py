"""What ``airflow oauth-guard`` offers. Airflow imports this for every command, so it stays light."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

ARG_FILE = Arg(
    ("file",), nargs="?", default="-", help="A JSON file of credentials, or - for standard input (the default)."
)
ARG_JSON = Arg(("--json",), action="store_true", help="Print JSON instead of a table.")

COMMANDS = (
    ActionCommand(
        name="import",
        help="Put tokens into the store.",
        description=(
            "Reads a JSON list of objects with `conn_id`, `connection_class` (e.g. refresh_token) and at least one of "
            "`access_token` and `refresh_token`; optionally `expires_at` (ISO 8601 with a time zone) of the access "
            "token. A known credential gets them as its next generation. Nothing is imported if any entry is wrong."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.commands.import_tokens"),
        args=(ARG_FILE,),
    ),
    ActionCommand(
        name="status",
        help="Show every guarded credential: its status, what is open about it, and the evidence.",
        func=lazy_load_command("airflow_oauth_guard.cli.commands.status"),
        args=(ARG_JSON,),
    ),
)


def get_cli_commands() -> list[CLICommand]:
    """Our commands, for Airflow's command line (3.2 and newer)."""
    return [GroupCommand(name="oauth-guard", help="Guarded OAuth credentials", subcommands=COMMANDS)]

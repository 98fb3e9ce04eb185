"""What ``airflow oauth-guard`` offers. Airflow imports this for every command, so it stays light."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

ARG_FILE = Arg(
    ("file",), nargs="?", default="-", help="A JSON file of credentials, or - for standard input (the default)."
)
ARG_JSON = Arg(("--json",), action="store_true", help="Print JSON instead of a table.")
ARG_CONN_ID = Arg(("conn_id",), help="The credential's connection id.")
ARG_DRY_RUN = Arg(("--dry-run",), action="store_true", help="Delete nothing; only count what would go.")

ARG_ANSWERS = Arg(
    ("file",), nargs="?", default="-", help="A file with one answer or many, or - for standard input (the default)."
)
ARG_CALL = Arg(
    ("--call",), choices=("refresh", "probe"), default="refresh", help="What was asked, where the input does not say."
)
ARG_PROVIDER = Arg(("--provider",), help="Who answered, where the input does not say; see `providers`.")
ARG_GRANT_CLASS = Arg(("--grant-class",), help="The connection class, where the input does not say.")
ARG_ONE_PROVIDER = Arg(("provider",), nargs="?", help="Show all that is known of this one.")

COMMANDS = (
    ActionCommand(
        name="explain",
        help="Say what an OAuth answer means, and whose job it is.",
        description=(
            "Reads one answer as it came over the wire (curl -i), one as a JSON object, or JSON lines with `call` (refresh or "
            "probe), `http_status`, `headers`, `body` and, if known, `provider` and `grant_class`. Prints the finding, what "
            "it is about, the rule, a sentence, whose job it is, and whether this answer alone would let the guard "
            "declare a death (it hardly ever would)."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.explain.explain_answers"),
        args=(ARG_ANSWERS, ARG_CALL, ARG_PROVIDER, ARG_GRANT_CLASS, ARG_JSON),
    ),
    ActionCommand(
        name="providers",
        help="List the providers of the catalog, or what is known of one and from where.",
        func=lazy_load_command("airflow_oauth_guard.cli.explain.providers"),
        args=(ARG_ONE_PROVIDER,),
    ),
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
        name="connect",
        help="Connect a credential by a person's approval on another device.",
        description=(
            "For connections of type oauth_guard_refresh_token whose provider offers the device flow (RFC 8628): shows an "
            "address and a code, waits until somebody has approved there, and stores the tokens as the credential's next "
            "generation. Nothing is printed that opens a door."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.commands.connect"),
        args=(ARG_CONN_ID,),
    ),
    ActionCommand(
        name="status",
        help="Show every guarded credential: its status, what is open about it, and the evidence.",
        func=lazy_load_command("airflow_oauth_guard.cli.commands.status"),
        args=(ARG_JSON,),
    ),
    ActionCommand(
        name="revert",
        help="Bring a credential's tokens before back.",
        description=(
            "For a token that was entered by mistake, or a new one that the provider does not honour. What is there now is "
            "kept aside, so a second run undoes the first. Mind that a provider which rotates may revoke everything when "
            "a refresh token comes again that it has replaced."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.commands.revert"),
        args=(ARG_CONN_ID,),
    ),
    ActionCommand(
        name="rotate-key",
        help="Encrypt the stored tokens with the newest key.",
        description=(
            "Encrypts with the first key of `[core] fernet_key` whatever another key of the list has made, beside "
            "refreshes that run, and says whether the old keys may be removed. Can be run again at any time. Exit code "
            "1 if no key opens something; it is named."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.commands.rotate_key"),
        args=(),
    ),
    ActionCommand(
        name="purge",
        help="Delete history that has had its time.",
        description=(
            "Deletes what is older than `[oauth_guard] evidence_retention_days` and `heartbeat_retention_days`. What a "
            "status, an open question or the next decision rests on stays. The DAG `oauth_guard_purge` does the same "
            "once a day."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.commands.purge"),
        args=(ARG_DRY_RUN,),
    ),
)


def get_cli_commands() -> list[CLICommand]:
    """Our commands, for Airflow's command line (3.2 and newer)."""
    return [GroupCommand(name="oauth-guard", help="Guarded OAuth credentials", subcommands=COMMANDS)]

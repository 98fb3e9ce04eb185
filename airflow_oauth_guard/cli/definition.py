"""What ``airflow oauth-guard`` offers. Airflow imports this for every command, so it stays light."""

from __future__ import annotations

from collections.abc import Callable

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command


def _move(what: str) -> Callable[[str], tuple[str, str]]:
    """The type of an option whose order among others counts: its value with what it names."""
    return lambda name: (what, name)


ARG_FILE = Arg(("file",), nargs="?", default="-", help="A JSON file, or - for standard input (the default).")
ARG_CONNECTION = Arg(
    ("--connection",),
    dest="moves",
    action="append",
    type=_move("connection"),
    metavar="CONN_ID",
    help="An Airflow connection of any type that holds tokens now.",
)
ARG_VARIABLE = Arg(
    ("--variable",),
    dest="moves",
    action="append",
    type=_move("variable"),
    metavar="KEY",
    help="An Airflow Variable that holds tokens now: one as plain text, or JSON of any nesting.",
)
ARG_INTO = Arg(
    ("--into",),
    dest="moves",
    action="append",
    type=_move("into"),
    metavar="CONN_ID",
    help="The guarded connection (type oauth_guard_...) that they are for, behind the places they come from.",
)
ARG_ACCESS_TOKEN_FROM = Arg(
    ("--access-token-from",),
    metavar="PLACE",
    help="Where the access token is, if its name does not tell: password, extra.session_id, prod.token. Or none.",
)
ARG_REFRESH_TOKEN_FROM = Arg(("--refresh-token-from",), metavar="PLACE", help="The same for the refresh token.")
ARG_EXPIRES_AT_FROM = Arg(
    ("--expires-at-from",), metavar="PLACE", help="The same for the instant at which the access token ends."
)
ARG_IMPORT_DRY_RUN = Arg(
    ("--dry-run",), action="store_true", help="Import nothing; say what was found where, and what would happen."
)
ARG_JSON = Arg(("--json",), action="store_true", help="Print JSON instead of a table.")
ARG_CONN_ID = Arg(("conn_id",), help="The credential's connection id.")
ARG_DRY_RUN = Arg(("--dry-run",), action="store_true", help="Delete nothing; only count what would go.")
ARG_AGAIN = Arg(
    ("--again",),
    action="store_true",
    help="Take tokens, too, that the credential has had before. A refresh token that was replaced since is spent, as a rule.",
)

ARG_ANSWERS = Arg(
    ("file",), nargs="?", default="-", help="A file with one answer or many, or - for standard input (the default)."
)
ARG_CALL = Arg(
    ("--call",), choices=("refresh", "probe"), default="refresh", help="What was asked, where the input does not say."
)
ARG_PROVIDER = Arg(("--provider",), help="Who answered, where the input does not say; see `providers`.")
ARG_GRANT_CLASS = Arg(("--grant-class",), help="The connection class, where the input does not say.")
ARG_ONE_PROVIDER = Arg(("provider",), nargs="?", help="Show all that is known of this one.")

ARG_SOURCE = Arg(("source",), help="The source's name.")
ARG_ROWS = Arg(("--rows",), help="How many rows the job moved. Leave it out where nobody knows, which is not zero.")
ARG_AT = Arg(("--at",), help="When the job ran (ISO 8601 with a time zone); now by default.")
ARG_WATERMARK = Arg(("--watermark",), help="How far the data reaches (ISO 8601 with a time zone).")
ARG_NOTE = Arg(
    ("--note",),
    help="What the run says beside the number. One that begins with `skipped:` is of a run that did nothing, and is no delivery.",
)
ARG_RUN = Arg(("--run",), help="The run's name: one heartbeat for each, however often it is sent.")
ARG_FOR = Arg(("--for",), dest="lasting", help="How long, such as 4h or 2d.")
ARG_MUTE_UNTIL = Arg(("--until",), help="Until when (ISO 8601 with a time zone).")
ARG_REASON = Arg(("--reason",), help="Why, for whoever wonders.")
ARG_ABOUT = Arg(
    ("about",),
    choices=("credential", "client", "source", "group", "route", "monitor"),
    help="What the alarm is about.",
)
ARG_NAME = Arg(("name",), help="Its name, as the alarm says it.")
ARG_MAX_AGE = Arg(("--max-age",), help="How long ago either may have spoken, such as 45m; its window by default.")

ARG_HISTORY = Arg(("file",), help="A CSV file with the columns source, time and rows, or - for standard input.")
ARG_WINDOW = Arg(
    ("--window",), default="learned", help="learned (the default), a duration such as 24h, or 'cron 0 6 * * *'."
)
ARG_BUDGET = Arg(
    ("--budget",), type=float, default=0.1, help="False alarms per source and month that a learned window may cost."
)
ARG_TIMEZONE = Arg(("--timezone",), default="UTC", help="Of the cron and the closed days; UTC by default.")
ARG_CLOSED = Arg(
    ("--closed",),
    help="When nothing is expected: weekdays and dates, such as sat,sun,2026-12-24/2026-12-27,--01-01.",
)
ARG_FALLBACK = Arg(("--fallback",), default="24h", help="The window until there is enough to learn from; 24h.")
ARG_STEP = Arg(("--step",), default="1h", help="How often the check would have run; 1h.")
ARG_REPLAY_UNTIL = Arg(
    ("--until",), help="When the history ends (ISO 8601 with a time zone); with its last heartbeat by default."
)
ARG_PLOT = Arg(("--plot",), help="Draw it, too: a PNG. Needs matplotlib, our extra `plot`.")

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
        name="heartbeat",
        help="Announce that a job outside Airflow ran, and how much it moved.",
        description=(
            "A source that nobody declared is watched from then on, with a learned window. Sent again with the same "
            "--run, or the same --at where there is none, it is one heartbeat."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.sources.heartbeat"),
        args=(ARG_SOURCE, ARG_ROWS, ARG_AT, ARG_WATERMARK, ARG_RUN, ARG_NOTE),
    ),
    ActionCommand(
        name="sources",
        help="Show every source: how it stands, when it spoke last, and when its silence becomes an alarm.",
        func=lazy_load_command("airflow_oauth_guard.cli.sources.sources"),
        args=(ARG_JSON,),
    ),
    ActionCommand(
        name="mute",
        help="Raise no alarm about a source for a while.",
        description="A pause has an end, and one that lasts for weeks is an alarm of its own.",
        func=lazy_load_command("airflow_oauth_guard.cli.sources.mute"),
        args=(ARG_SOURCE, ARG_FOR, ARG_MUTE_UNTIL, ARG_REASON),
    ),
    ActionCommand(
        name="unmute",
        help="End a source's pause now.",
        func=lazy_load_command("airflow_oauth_guard.cli.sources.unmute"),
        args=(ARG_SOURCE,),
    ),
    ActionCommand(
        name="forget",
        help="Watch a source no more.",
        description="Its heartbeats stay until they are purged. A declaration that names it, or its next heartbeat, brings it back.",
        func=lazy_load_command("airflow_oauth_guard.cli.sources.forget"),
        args=(ARG_SOURCE,),
    ),
    ActionCommand(
        name="acknowledge",
        help="Say that somebody is on an alarm: it is told no more while it stays the same.",
        func=lazy_load_command("airflow_oauth_guard.cli.sources.acknowledge"),
        args=(ARG_ABOUT, ARG_NAME),
    ),
    ActionCommand(
        name="expected",
        help="Say that a source's last alarm had to be expected: its window learns from it.",
        func=lazy_load_command("airflow_oauth_guard.cli.sources.expected"),
        args=(ARG_SOURCE,),
    ),
    ActionCommand(
        name="health",
        help="Say whether anybody watches, for probes outside Airflow; exit code 1 if not.",
        description=(
            "The DAGs oauth_guard_flat_line and oauth_guard_refresh must have spoken lately, and nothing may be open about "
            "the watch itself or the ways to tell people."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.sources.health"),
        args=(ARG_MAX_AGE, ARG_JSON),
    ),
    ActionCommand(
        name="replay",
        help="Say how a window would have behaved on a history.",
        description=(
            "Goes through heartbeats step by step, each check knowing only what was before it, and prints every alarm there "
            "would have been as JSON lines: source, kind (late, flat or stuck), opened, resolved (null while open) and "
            "explanation. Times are ISO 8601, UTC where they do not say; empty rows are unknown. Needs no store."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.replay.replay_history"),
        args=(
            *(ARG_HISTORY, ARG_WINDOW, ARG_BUDGET, ARG_TIMEZONE, ARG_CLOSED, ARG_FALLBACK, ARG_STEP),
            *(ARG_REPLAY_UNTIL, ARG_PLOT),
        ),
    ),
    ActionCommand(
        name="import",
        help="Put tokens into the store.",
        description=(
            "With --into: takes the tokens out of Airflow connections (--connection), Variables (--variable) or, without "
            "either, a JSON file of any form, and puts them into the store for that guarded connection, which is asked at "
            "the next cycle. Can be repeated for others: --connection a --into b --variable c --into d. Says what it found "
            "where by length and fingerprint, never a token; where that cannot be told it asks for one of the options "
            "...-from. Without --into: reads a JSON list of objects with `conn_id`, `connection_class` (e.g. "
            "refresh_token) and at least one of `access_token` and `refresh_token`; optionally `expires_at` (ISO 8601 with "
            "a time zone) of the access token. A known credential gets them as its next generation, unless it has had them "
            "before. Nothing is imported if anything is wrong."
        ),
        func=lazy_load_command("airflow_oauth_guard.cli.importing.import_tokens"),
        args=(
            *(ARG_FILE, ARG_CONNECTION, ARG_VARIABLE, ARG_INTO),
            *(ARG_ACCESS_TOKEN_FROM, ARG_REFRESH_TOKEN_FROM, ARG_EXPIRES_AT_FROM, ARG_IMPORT_DRY_RUN, ARG_AGAIN),
        ),
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

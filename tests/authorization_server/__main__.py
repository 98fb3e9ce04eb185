"""``python -m tests.authorization_server --port 0``: prints its address as one line of JSON, then serves."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading


def exit_with_parent() -> None:
    """Wait for the end of standard input: the parent closed it, or died. Then leave at once."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Read the options, say where we listen, serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.authorization_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any free port")
    parser.add_argument("--exit-with-parent", action="store_true", help="exit when standard input closes")
    options = parser.parse_args()

    # Authlib refuses plain http, and on loopback there is nothing else. This process only.
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    from tests.authorization_server.server import listen

    # A handler, because as PID 1 of a container the default action would be to ignore the signal.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = listen(options.port)
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    if options.exit_with_parent:
        threading.Thread(target=exit_with_parent, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()

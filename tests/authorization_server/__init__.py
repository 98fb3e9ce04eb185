"""A real authorization and resource server, for the tests and the demo.

It runs as a process of its own, so what we test crosses a socket, and it keeps the ground truth: which
access tokens and which grants are really alive. `client.py` starts it and talks to its `/admin` pages.
"""

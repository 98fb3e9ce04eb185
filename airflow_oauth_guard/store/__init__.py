"""The only SQL. Tokens, evidence, statuses, questions, incidents and heartbeats, in a database of their own."""

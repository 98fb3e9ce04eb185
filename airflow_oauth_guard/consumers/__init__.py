"""How an existing DAG uses a guarded token."""

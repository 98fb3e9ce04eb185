"""The flows of the hooks, awaited."""

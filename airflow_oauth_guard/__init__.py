"""Keeps OAuth tokens fresh in Apache Airflow, never calls a credential dead on a guess, and shouts when a source
goes quiet.

Importing this does nothing: no tables, no network, no configuration read.
"""

"""What runs inside Airflow's API server."""

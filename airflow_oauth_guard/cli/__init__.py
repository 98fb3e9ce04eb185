"""``airflow oauth-guard ...``"""

"""One suite against every store: what SQLite, PostgreSQL and MariaDB must do alike."""

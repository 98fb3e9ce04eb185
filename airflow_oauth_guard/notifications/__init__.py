"""Who is told about an incident, and how."""

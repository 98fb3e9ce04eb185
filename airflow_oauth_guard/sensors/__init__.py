"""The probe sensor: it gates what is destructive."""

"""How true the readings are: measured on documented answers, on real ones, and over a simulated year."""

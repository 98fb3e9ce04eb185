"""What it costs, measured on the machine at hand; run one as ``python -m benchmarks.<name>``."""

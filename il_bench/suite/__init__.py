"""The benchmark itself, as tests: `pytest --benchmark --pyargs il_bench.suite` runs it from anywhere."""

"""For the tests of il_bench itself; the plugin comes from its entry point, as for everybody else."""

pytest_plugins = ["pytester"]

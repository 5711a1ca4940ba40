"""Settings for all tests."""

from hypothesis import settings

# The same examples on every machine; a slow machine is no failure.
settings.register_profile("ichfast", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("ichfast")

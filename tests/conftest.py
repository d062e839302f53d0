"""Settings of all tests."""

from hypothesis import settings

# A shared machine may stall for longer than an example's deadline.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

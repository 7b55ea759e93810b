"""Properties have no deadline: the processors are shared with other lanes, and an example that had to wait for one proves nothing."""

from hypothesis import settings

settings.register_profile("lanes", settings.default, deadline=None)
settings.load_profile("lanes")

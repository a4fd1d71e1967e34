"""For every test: time on a shared machine is not what hypothesis should judge."""

from hypothesis import HealthCheck, settings

settings.register_profile("tiphys", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tiphys")

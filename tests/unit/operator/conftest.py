from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The machine that runs the tests may be busy with clusters: no example is judged by its time. CI looks at the same examples
# each time; a person who wants new ones says HYPOTHESIS_PROFILE=explore.
settings.register_profile("operator", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("operator"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "operator"))

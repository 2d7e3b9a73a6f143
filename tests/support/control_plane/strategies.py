"""Names and UIDs that the API server can give to a session, for hypothesis."""

from __future__ import annotations

import string

from hypothesis import strategies as st

_ALNUM = string.ascii_lowercase + string.digits
_labels = st.builds(lambda first, rest: (first + rest).rstrip("-"), st.sampled_from(_ALNUM), st.text(_ALNUM + "-", max_size=62))
session_names = st.lists(_labels, min_size=1, max_size=8).map(".".join).filter(lambda name: len(name) <= 253)
"""DNS subdomains: what an object of a custom kind may be called."""
uids = st.uuids().map(str)

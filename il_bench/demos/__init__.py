"""Demonstrations by PushT's expert: make them, merge them, describe any."""

"""Verbalizers: templates, actions, rewrites; all behind the protocol in `base`."""

"""Measurements on clips and networks: what a study or an audit reports as *measured*."""

"""The editor, the studies, the report and the command line: everything that touches a real network."""

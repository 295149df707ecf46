"""audit.json, the report made of it, and the README's table."""

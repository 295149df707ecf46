"""`framebound audit`: what the theorems say about somebody's own pipeline, adapter and clip.

    settings -> measure (stored results) -> answers -> audit.json -> report.html
"""

from experiments.audit.run import audit_pipeline
from experiments.audit.settings import AuditSettings

__all__ = ["AuditSettings", "audit_pipeline"]

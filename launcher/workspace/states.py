"""The words for where a job stands, as status, plan and scripts show them."""

WAITING, QUEUED, RUNNING, UNKNOWN = "waiting", "queued", "running", "unknown"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

"""The job and the project that a line in a worker's log belongs to."""

from __future__ import annotations

import logging

from rq import get_current_job


class JobFields(logging.Filter):
    """Adds the id of the current job and of its project to each log record; "" and 0 outside a job."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `record.job` and `record.project`; every record passes."""
        job = get_current_job()
        job_id = str(job.id) if job else ""
        project = job_id.partition("-")[0]  # the ids of a project's jobs begin with the project's
        record.job, record.project = job_id, int(project) if project.isdecimal() else 0
        return True

"""What a line in the log of a worker belongs to."""

from __future__ import annotations

import logging

from rq import get_current_job


class JobFields(logging.Filter):
    """Gives each record the id of the job that is being worked on, and of its project; "" and 0 outside a job."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `record.job` and `record.project`; every record passes."""
        job = get_current_job()
        job_id = str(job.id) if job else ""
        project = job_id.partition("-")[0]  # the ids of a project's jobs begin with the project's
        record.job, record.project = job_id, int(project) if project.isdecimal() else 0
        return True

"""What the process is doing, and what it was asked to stop doing."""

import datetime
import threading
import time

from modules import devices


class State:
    def __init__(self):
        self.server_start = time.time()
        self._command = None
        self._command_set = threading.Event()
        self._reset("", 0)

    def _reset(self, job, job_count):
        self.job = job
        self.job_count = job_count
        self.job_no = 0
        self.job_timestamp = "0"
        self.sampling_step = 0
        self.sampling_steps = 0
        self.skipped = False
        self.interrupted = False
        self.stopping_generation = False
        self.processing_has_refined_job_count = False
        self.current_latent = None
        self.current_image = None
        self.current_image_sampling_step = 0
        self.id_live_preview = 0
        self.textinfo = None
        self.time_start = None

    def begin(self, job="(unknown)"):
        steps = self.sampling_steps
        self._reset(job, -1)
        self.sampling_steps = steps
        self.job_timestamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        self.time_start = time.time()
        devices.torch_gc()

    def end(self):
        time.time() - self.time_start  # as the real one: fails without a `begin`
        self.job = ""
        self.job_count = 0
        devices.torch_gc()

    def skip(self):
        self.skipped = True

    def interrupt(self):
        self.interrupted = True

    def stop_generating(self):
        self.stopping_generation = True

    def nextjob(self):
        self.job_no += 1
        self.sampling_step = 0
        self.current_image_sampling_step = 0

    @property
    def server_command(self):
        return self._command

    @server_command.setter
    def server_command(self, value):
        self._command = value
        self._command_set.set()

    @property
    def need_restart(self):
        return self._command == "restart"

    def request_restart(self):
        self.interrupt()
        self.server_command = "restart"

    def wait_for_server_command(self, timeout=None):
        if not self._command_set.wait(timeout):
            return None
        self._command_set.clear()
        command, self._command = self._command, None
        return command

    def dict(self):
        keys = (
            "skipped",
            "interrupted",
            "stopping_generation",
            "job",
            "job_count",
            "job_timestamp",
            "job_no",
            "sampling_step",
            "sampling_steps",
        )
        return {key: getattr(self, key) for key in keys}

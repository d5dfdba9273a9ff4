"""What goes wrong, and when: set by tests through `FakeHost.faults`. Part of the fake alone."""

import torch


class Faults:
    def __init__(self):
        self.images = 0
        """Sampling passes begun so far (a batch is one); the number that `at` refers to."""
        self.oom_above = None
        """Batches larger than this run out of memory."""
        self.nan_prompts = set()
        """Images whose prompt contains one of these texts are NaN."""
        self.error_passes = {}
        """Pass -> exception to raise."""
        self.ignore_weights = False
        """Images keep showing the weights of the first image made after this was set."""
        self.drift = False
        """Another extension writes into the UNet after each pass: nothing is ever repeated."""
        self._calls = {}
        self._frozen = {}

    def at(self, image, step, call):
        """Call `call()` before step `step` (from 0) of pass `image` (from 1)."""
        self._calls[image, step] = call

    def begin_pass(self, batch_size):
        self.images += 1
        if self.oom_above is not None and batch_size > self.oom_above:
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory (batch of {batch_size}).")
        if self.images in self.error_passes:
            raise self.error_passes.pop(self.images)

    def before_step(self, step):
        call = self._calls.pop((self.images, step), None)
        if call is not None:
            call()

    def end_pass(self, latents, model, prompts):
        if self.drift:
            with torch.no_grad():
                next(model.model.parameters()).flatten()[:1].add_(0.01)
        for latent, prompt in zip(latents, prompts, strict=True):
            if any(text in prompt for text in self.nan_prompts):
                latent.fill_(torch.nan)
        return latents

    def seen(self, part, digest):
        """Return what an image shows of a part's weights."""
        if not self.ignore_weights:
            self._frozen.clear()
            return digest
        return self._frozen.setdefault(part, digest)


faults = Faults()

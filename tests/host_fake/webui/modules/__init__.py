"""An imitation of AUTOMATIC1111's `modules` package. See tests/host_fake/README.md."""

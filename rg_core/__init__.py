"""The mathematics of Readout Guidance, on torch alone."""

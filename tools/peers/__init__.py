"""What people would use instead of readout guidance, trained for the demo world: ControlNets and T2I-Adapters of the host's own classes."""

"""What users connect, in the forms that other nodes and tools give it."""

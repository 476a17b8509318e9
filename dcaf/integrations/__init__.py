"""Floor 3: one file for each framework; none imports another."""

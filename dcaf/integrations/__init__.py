"""One file for each framework; none imports another."""

"""Floor 4: a deployment wizard and a basket, served and driven, for `dcaf demo`."""

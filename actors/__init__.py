"""The parts of the loop as Ray actors; the only package that imports ray."""

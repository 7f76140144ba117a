"""Objects as a mapping: what is cold is swapped out, value by value."""

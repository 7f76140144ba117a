"""The only policy: which memory goes, in which order, how much and when."""

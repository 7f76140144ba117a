"""Other people's test suites, run with their arrays in paged memory."""

"""Helpers of the tests of the session runtime: whole runtimes and workspace servers that tests start and kill."""

"""Public fakes and contract suites, for the tests of whoever embeds the proxy."""

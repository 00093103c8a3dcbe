"""An edge proxy for platforms of many apps, and a library to embed it."""

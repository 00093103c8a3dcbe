"""Where routes come from: one file per source, one contract for all."""

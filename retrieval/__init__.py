"""Model files, texts and pictures -> vectors of one space."""

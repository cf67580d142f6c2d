"""The space in use: choosing it, showing it, and making a zoo of another space again in it."""

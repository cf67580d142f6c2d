"""What models draw, beside what their base models draw without them."""
